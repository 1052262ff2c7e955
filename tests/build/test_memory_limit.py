"""What attribution may take in memory decides bytes, so nothing about the machine decides it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.api import Study
from engine.attribution.trak.solver import Solver
from engine.build import solver
from engine.build.run import Run
from engine.build.solver import AUTO_MEMORY_BYTES, limit_workers, memory_per_worker
from engine.store import layout
from tests.builders.synthetic_study import write_study

GIB = 2**30
SOLVER = Solver("dual-wide", 32_768, 32_768, 1.0, "", 0.5, "gauss-newton")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return write_study(tmp_path / "study", stage="data", n_train=2000, n_test=500)


def machine(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": int(gib * GIB) // 4096}
    monkeypatch.setattr(solver.os, "sysconf", pages.__getitem__)


@pytest.mark.parametrize("workers", [0, 1, 64])
@pytest.mark.parametrize("gib", [1, 8, 512])
def test_neither_machine_nor_workers_change_the_limit(
    study: Study, monkeypatch: pytest.MonkeyPatch, gib: float, workers: int
) -> None:
    machine(monkeypatch, gib)
    assert memory_per_worker(Run(study, "cpu", workers, print)) == AUTO_MEMORY_BYTES


def test_study_toml_sets_the_limit(study: Study) -> None:
    spec = layout.spec_file(study.root)
    spec.write_text(spec.read_text() + "[trak]\nmemory_gib = 1.5\n")
    limited = Study.open(study.root)
    assert memory_per_worker(Run(limited, "cpu", 3, print)) == 1.5 * GIB


@pytest.mark.parametrize(
    ("gib", "requested", "granted"),
    [(64, 2, 2), (64, 0, 0), (0.1, 0, 0), (0.1, 8, 1), (2, 8, 2), (8, 64, 11)],
)
def test_as_many_jobs_run_side_by_side_as_half_the_machine_holds(
    study: Study, monkeypatch: pytest.MonkeyPatch, gib: float, requested: int, granted: int
) -> None:
    """2,000 + 500 examples of 32,768 features: 0.34 GiB a job."""
    machine(monkeypatch, gib)
    run = Run(study, "cpu", requested, print)
    assert limit_workers(run, SOLVER) == replace(run, workers=granted)
