"""A study that a benchmark measures on, built once and kept in `.bench/`."""

from __future__ import annotations

import shutil

from benchmarks._report import say
from benchmarks._server import ROOT
from engine.api import Study
from engine.data.templates import spec_from_template
from engine.store.errors import StaleError


def built(name: str, spec: str) -> Study:
    """The study of that folder in `.bench/`, made of this study.toml where there is none."""
    folder = ROOT / ".bench" / name
    if not folder.exists():
        Study.create(folder, spec)
    study = Study.open(folder)
    say(f"building {folder}, unless it is")
    try:
        study.build()
    except StaleError:  # made by other code
        shutil.rmtree(folder)
        return built(name, spec)
    return study


def demo() -> Study:
    """What `dataloupe demo` builds."""
    return built("demo", spec_from_template("fashion-mnist"))
