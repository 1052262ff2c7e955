"""Studies for benchmarks, built once and kept in `.bench/`."""

from __future__ import annotations

import shutil

from benchmarks._report import log
from benchmarks._server import ROOT
from engine.api import Study
from engine.data.templates import spec_from_template
from engine.store.errors import StaleError


def built(name: str, spec: str) -> Study:
    """The study in this folder of `.bench/`, created from the study.toml `spec` if missing."""
    folder = ROOT / ".bench" / name
    if not folder.exists():
        Study.create(folder, spec, trust=True)
    study = Study.open(folder)
    log(f"building {folder} if needed")
    try:
        study.build()
    except StaleError:  # made by different code
        shutil.rmtree(folder)
        return built(name, spec)
    return study


def demo() -> Study:
    """The study that `dataloupe demo` builds."""
    return built("demo", spec_from_template("fashion-mnist"))
