"""Work that is killed at a random moment and started again: does it leave the same files?

The work runs in a process of its own, which SIGKILL ends at a random moment. The same work is
started again, is killed again a few times, and at last runs to its end. Every file of the study
must then have the bytes of a study in which nothing was killed, except for the times of writing
that records hold; if one has not, all kills of that chain count as not identical. A few kills
of builds are of ones with a worker, which may still write when its parent is dead.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._report import log, report
from engine.api import Study
from engine.exchange.importing.banks import import_bank
from engine.exchange.importing.methods import import_scores
from engine.exchange.uploads.keeping import accept_files
from engine.running.jobs.kinds import kind
from engine.store import layout
from tests.builders.calibrated_study import give_units

SPEC = """\
name = "Killed"
[data]
source = "fashion-mnist"
train_limit = 120
test_limit = 30
[algorithms.mlp]
architecture = "mlp"
architecture_options = { widths = [16] }
epochs = 2
learning_rate = 0.05
batch_size = 50
checkpoints = 2
[search]
top_k = 20
[subset_runs]
masks = 15
"""
WIDE = """\
[algorithms.wide]
architecture = "mlp"
architecture_options = { widths = [24] }
epochs = 2
learning_rate = 0.05
batch_size = 50
checkpoints = 2
"""
TIMES = ("created", "when", "dataloupe.checksum")
"""Keys of JSON records that hold a time of writing, and the checksum over it."""
MOST = 5
"""Kills in a chain, after which all files are compared."""
TRIES = 6

LONGEST = 300.0
"""Seconds after which undisturbed work counts as hung."""

_CONTEXT = multiprocessing.get_context("fork")
"""A fork has everything imported and compiled that the studies needed, so moments fall on work and
not on imports. It is safe here: this process computes with one thread."""


@dataclass(frozen=True)
class Work:
    """Something that is killed.

    Attributes:
        name: What it is.
        run: Does it in the study in this folder. Runs in another process.
        before: The study in which it starts.
        kills: How often it is killed.
    """

    name: str
    run: Callable[[Path], None]
    before: Path
    kills: int


def measure() -> dict[str, Any]:
    """Kill everything; count kills, and those after which all files were the same."""
    with tempfile.TemporaryDirectory(prefix="dataloupe-kills-") as name:
        folder = Path(name)
        found = [kill_and_compare(work, folder / work.name) for work in works(folder / "studies")]
    by_work = {work: {"kills": kills, "identical": same} for work, kills, same in found}
    builds = [kills for work, kills, _ in found if work.startswith("build")]
    return {
        "kills": sum(kills for _, kills, _ in found),
        "kills_identical": sum(same for _, _, same in found),
        "kills_in_builds": sum(builds),
        "kills_by_work": by_work,
    }


# --- what is killed ------------------------------------------------------------------------------


def works(folder: Path) -> list[Work]:
    """Prepare the studies, and list everything that is killed in them."""
    log("building the studies")
    torch.set_num_threads(1)
    empty = Study.create(folder / "empty", SPEC).root
    built = copied(empty, folder / "built")
    build(0, built)
    pair = copied(built, folder / "pair")
    spec = layout.spec_file(pair)
    spec.write_text(spec.read_text().replace("[search]", f"{WIDE}[search]"))
    build(0, pair)
    pair = give_units(Study.open(pair)).root
    tested = copied(pair, folder / "tested")
    comparison = job("compare", COMPARED, tested)["comparison"]
    return [
        Work("build", partial(build, 0), empty, 23),
        Work("build with a worker", partial(build, 1), empty, 2),
        *(
            Work(name, partial(run_job, name, parameters), pair, kills)
            for name, parameters, kills in JOBS
        ),
        Work("hypothesis", partial(run_job, "hypothesis", tests(comparison)), tested, 1),
        *(
            Work(name, partial(build, 0), without(built, folder / f"no {name}", gone), 2)
            for name, gone in STAGES.items()
        ),
        *imports(folder, built),
    ]


COMPARED = {"a": "mlp", "b": "wide", "directions": 2, "workers": 0}
JOBS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("verify", {"removed": [3, 7], "tests": [5], "seeds": 3, "control": True, "workers": 0}, 2),
    ("unlearn", {"forget": [3, 7], "models": 4, "methods": ["ascent"], "workers": 0}, 2),
    ("predict", {"forget": [3, 7]}, 1),
    ("certify", {"forget": [3, 7], "method": "ascent"}, 1),
    ("compare", COMPARED, 2),
)
STAGES = {
    "datamodels": ("methods", "search/datamodel", "search/hybrid", "quality"),
    "hybrid": ("methods/hybrid", "search/hybrid", "quality"),
    "quality": ("quality",),
}
"""Stage → what it and the stages after it have written, below the algorithm's folder."""


def tests(comparison: str) -> dict[str, Any]:
    return {"comparison": comparison, "names": ["brightness"], "intensities": [1.0]}


def without(built: Path, target: Path, gone: tuple[str, ...]) -> Path:
    """A copy of a built study in which some stages have yet to run."""
    root = copied(built, target)
    for name in gone:
        shutil.rmtree(layout.algorithm_folder(root, "mlp") / name)
    return root


def imports(folder: Path, built: Path) -> list[Work]:
    """Imports of a matrix and of a run bank, and an upload of two checkpoints."""
    files = folder / "files"
    files.mkdir()
    study = Study.open(built)
    n = study.dataset.n_test, study.dataset.n_train
    np.save(files / "scores.npy", np.random.default_rng(0).normal(size=n).astype(np.float32))
    runs = study.bank("mlp")
    bank = files / "bank"
    bank.mkdir()
    assert runs.train is not None
    arrays = {"train_masks": runs.masks, "test_margins": runs.test, "train_margins": runs.train}
    for name, array in arrays.items():
        np.save(bank / f"{name}.npy", array)
    no_bank = without(built, folder / "no bank", ("bank",))
    spec = layout.spec_file(no_bank)
    spec.write_text(spec.read_text().replace("masks = 15", "masks = 0"))
    weights = [layout.checkpoint_file(built, "mlp", number) for number in range(2)]
    return [
        Work("import a matrix", partial(import_matrix, files / "scores.npy"), built, 2),
        Work("import a bank", partial(import_runs, bank), no_bank, 2),
        Work("upload", partial(upload, weights), built, 2),
    ]


def build(workers: int, root: Path) -> None:
    Study.open(root).build(workers=workers)


def run_job(name: str, parameters: dict[str, Any], root: Path) -> None:
    job(name, parameters, root)


def job(name: str, parameters: dict[str, Any], root: Path) -> dict[str, Any]:
    """Run a job of the queue in this process, and return its result."""
    study = Study.open(root)
    return kind(name).work(study, kind(name).checked(study, parameters), lambda *step: None)


def import_matrix(file: Path, root: Path) -> None:
    import_scores(Study.open(root), "npy", file, name="mine")


def import_runs(folder: Path, root: Path) -> None:
    import_bank(Study.open(root), folder)


def upload(weights: list[Path], root: Path) -> None:
    accept_files(Study.open(root), weights, name="Killed")


# --- killing -------------------------------------------------------------------------------------


def kill_and_compare(work: Work, folder: Path) -> tuple[str, int, int]:
    """Kill a work again and again; (its name, number of kills, kills with the same files after)."""
    whole = copied(work.before, folder / "whole")
    seconds = run_alone(work.run, whole)
    assert seconds is not None
    moments, kills, same = random.Random(work.name), 0, 0
    while kills < work.kills:
        chain = min(MOST, work.kills - kills)
        root = copied(work.before, folder / "killed")
        for number in range(chain):
            kill(work, root, moments, seconds / (chain - number + 0.5))
        run_alone(work.run, root)
        kills += chain
        differing = differences(whole, root)
        same += 0 if differing else chain
        for line in differing:
            log(f"{work.name}: {line}")
        shutil.rmtree(root)
    log(f"{work.name}: {same} of {kills} the same, {seconds:.1f} s undisturbed")
    shutil.rmtree(folder)
    return work.name, kills, same


def kill(work: Work, root: Path, moments: random.Random, seconds: float) -> None:
    """Run the work and kill it within so many seconds, in the state in which the study is now.

    Raises:
        RuntimeError: It ends before it can be killed, again and again.
    """
    before = root.with_name("before")
    for _ in range(TRIES):  # earlier each time, if the work had ended before
        copied(root, before)
        limit = moments.uniform(0, seconds)
        if run_alone(work.run, root, limit) is None:
            shutil.rmtree(before)
            return
        shutil.rmtree(root)
        before.rename(root)
        seconds /= 2
    raise RuntimeError(f"{work.name} ended before it could be killed.")


def run_alone(run: Callable[[Path], None], root: Path, limit: float | None = None) -> float | None:
    """Run in a process of its own; the seconds that it took, or None if it was killed at the limit.

    Raises:
        RuntimeError: It failed.
    """
    started = _CONTEXT.Event()
    process = _CONTEXT.Process(target=_run_when_ready, args=(run, root, started))
    process.start()
    started.wait()
    start = time.perf_counter()
    process.join(LONGEST if limit is None else limit)
    if process.exitcode is None:
        process.kill()
        process.join()
    if process.exitcode == -signal.SIGKILL and limit is not None:
        return None
    if process.exitcode:
        raise RuntimeError(f"{run} failed with exit code {process.exitcode} in {root}.")
    return time.perf_counter() - start


def _run_when_ready(run: Callable[[Path], None], root: Path, started: Any) -> None:
    started.set()
    run(root)


# --- comparing -----------------------------------------------------------------------------------


def differences(whole: Path, other: Path) -> list[str]:
    """How the files of two studies differ, one line for each file."""
    expected, found = contents(whole), contents(other)
    lines = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    lines += [f"{name} is left over" for name in sorted(found.keys() - expected.keys())]
    both = sorted(expected.keys() & found.keys())
    return lines + [f"{name} differs" for name in both if expected[name] != found[name]]


def contents(root: Path) -> dict[str, object]:
    """What each file of a study holds: its SHA-256, or a JSON record without times."""
    found: dict[str, object] = {}
    for path in root.rglob("*"):
        if path.is_file():
            content: object = hashlib.sha256(path.read_bytes()).hexdigest()
            if path.suffix == ".json":
                content = json.loads(path.read_text())
                assert isinstance(content, dict)
                for key in TIMES:
                    content.pop(key, None)
            found[str(path.relative_to(root))] = content
    return found


def copied(study: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copytree(study, target))


if __name__ == "__main__":
    report("robustness_kills", measure, __doc__ or "")
