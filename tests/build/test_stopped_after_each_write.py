"""Work that stops after any write to the store and is started again gives the same files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Study, store
from engine.applications.brittle.supports import find
from engine.running.jobs.kinds import KINDS, kind
from engine.store import files
from tests.build.test_build import contents
from tests.builders.calibrated_study import give_units
from tests.builders.copies import copy_of
from tests.builders.job_kinds import TEST_KINDS
from tests.conftest import SMALL_STUDY

SOLVERS = {
    "dual with a soft threshold": '[trak]\nsolver = "dual-exact"\nsoft_threshold = 0.5\n',
    "primal with a soft threshold": (
        '[trak]\nsolver = "primal"\nproj_dim = 64\nsoft_threshold = 0.5\n'
    ),
    "settings chosen on subset runs": "",
}
"""Subset runs come in the last only: they and what is fitted on them know no solver."""
SECOND_ALGORITHM = """
[algorithms.wide]
architecture = "mlp"
architecture_options = { widths = [48] }
epochs = 4
learning_rate = 0.05
batch_size = 64
checkpoints = 2
"""
JOBS: dict[str, dict[str, Any]] = {
    "build": {"workers": 0},
    "verify": {"removed": [3, 7], "tests": [5], "seeds": 3, "control": True, "workers": 0},
    "unlearn": {"forget": [3, 7], "models": 4, "methods": ["ascent"], "workers": 0},
    "predict": {"forget": [3, 7]},
    "certify": {"forget": [3, 7], "method": "ascent"},
    "compare": {"a": "mlp", "b": "wide", "directions": 2},
    "replay": {"tests": [5], "algorithm": "mlp", "seeds": 2, "workers": 0},
}


class Stopped(Exception):
    """What a power cut would be, right after a file was written."""


def run_in_steps(work: Callable[[], None], patch: pytest.MonkeyPatch) -> int:
    """Stop the work after each write to the store and start it again, until it is done.

    A file that is written again with the same bytes, because a stage starts anew, stops nothing.

    Returns:
        The number of stops.
    """
    stops: set[tuple[Path, str]] = set()
    original = files.atomic

    @contextlib.contextmanager
    def atomic(path: Path) -> Iterator[Path]:
        with original(path) as temporary:
            yield temporary
        stop = path, hashlib.sha256(path.read_bytes()).hexdigest()
        if stop not in stops:
            stops.add(stop)
            raise Stopped

    with patch.context() as patched:
        patched.setattr(files, "atomic", atomic)
        patched.setattr(store, "atomic", atomic)
        while True:
            before = len(stops)
            with contextlib.suppress(Stopped):
                work()
            if len(stops) == before:
                return len(stops)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_build(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SMALL_STUDY if not SOLVERS[name] else SMALL_STUDY.replace("masks = 15", "masks = 0")
    study = Study.create(tmp_path / "whole", spec + SOLVERS[name])
    stopped = shutil.copytree(study.root, tmp_path / "stopped")
    study.build(workers=0)
    stops = run_in_steps(lambda: Study.open(stopped).build(workers=0), monkeypatch)
    assert stops > (20 if SOLVERS[name] else 40)
    assert contents(stopped) == contents(study.root)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of two algorithms with a comparison, whose scores have units."""
    root = tmp_path_factory.mktemp("compared") / "study"
    before, marker, after = SMALL_STUDY.partition("[search]")
    study = Study.create(root, before + SECOND_ALGORITHM + "\n" + marker + after)
    study.build(workers=0)
    return give_units(study)


def parameters_of(name: str, study: Study) -> dict[str, Any]:
    if name == "hypothesis":
        found = kind("compare").checked(study, JOBS["compare"])
        comparison = kind("compare").work(study, found, lambda *step: None)["comparison"]
        return {"comparison": comparison, "names": ["brightness"], "intensities": [1.0]}
    if name == "brittle":
        tests = find(study, "mlp", at_most=300).ranked[:2].tolist()
        return {"tests": tests, "at_most": 300, "seeds": 3, "algorithm": "mlp", "workers": 0}
    return JOBS[name]


def timeless(root: Path) -> dict[str, object]:
    """What a study holds, but for the times at which it was written."""
    found: dict[str, object] = dict(contents(root))
    for name in found:
        if name.endswith(".json"):
            content = json.loads((root / name).read_text())
            for key in ("created", "when", "dataloupe.checksum"):
                content.pop(key, None)
            found[name] = content
    return found


@pytest.mark.parametrize("name", sorted(set(KINDS) - set(TEST_KINDS)))
def test_a_job(name: str, compared: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = copy_of(compared, tmp_path / "whole")
    request = parameters_of(name, whole)
    stopped = copy_of(whole, tmp_path / "stopped")
    parameters = kind(name).checked(whole, request)
    results = []

    def work(study: Study) -> None:
        results.append(kind(name).work(Study.open(study.root), parameters, lambda *step: None))

    work(whole)
    (stopped.root / ".quality.json.killed.tmp").write_text("left by a killed job")
    stops = run_in_steps(lambda: work(stopped), monkeypatch)
    assert stops > 0 or name == "build"
    assert results[0] == results[1]
    assert timeless(stopped.root) == timeless(whole.root)
