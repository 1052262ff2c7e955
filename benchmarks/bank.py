"""How fast the run bank grows, compared with a plain training loop.

    python -m benchmarks.bank --json [--save]

The CNN and the MLP of DESIGN, trained on the included data with α = ½ and one seed.

- *plain*: a simple loop in one process with one thread: tensors in memory, an optimizer, then the
  margins of all examples.
- *plain_2_threads*: the same with two threads, which suffers if the machine is busy.
- *workers_1* and *workers_2*: the bank stage with this many one-thread processes, including the
  writing of shards, timed from the moment when this number of runs is finished.
- *bare*: the engine's trainer alone, in one process with one thread. The overhead is the additional
  time of a run with *workers_1*.

All of them take turns within a round; results are medians over rounds.

*resume*: the time for a build to check that 1,000 runs exist, and the time to read them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import log, report
from benchmarks.workload import CNN, ENCODING, MLP, Workload, data, task, untrained
from engine import store
from engine.api import Study
from engine.attribution.datamodels.run_bank import draw_mask, pack
from engine.build.run import Run
from engine.build.stages import bank as bank_stage
from engine.build.stages import data as data_stage
from engine.running.processes import run_jobs
from engine.store import layout
from engine.store.records import Progress
from engine.study.run_banks import wanted_runs

ALPHA = 0.5
RESUMED = 1000
ROUNDS = {"mlp": (3, 16), "cnn": (3, 2)}
"""(rounds, runs of each kind per round)."""
_KEYS = (
    "epochs batch_size optimizer learning_rate momentum weight_decay schedule warmup architecture"
)


def measure() -> dict[str, Any]:
    """Models per minute, overhead, time to resume, size."""
    with tempfile.TemporaryDirectory() as folder:
        studies = {load.name: make_study(Path(folder) / load.name, load) for load in (MLP, CNN)}
        return {
            **{
                load.name: compare(studies[load.name], load, *ROUNDS[load.name])
                for load in (MLP, CNN)
            },
            "resume": resume(studies["mlp"]),
        }


def make_study(root: Path, workload: Workload) -> Study:
    """A study with the workload's recipe and data, nothing trained."""
    recipe = workload.recipe.model_dump()
    lines = "\n".join(f"{key} = {recipe[key]!r}" for key in _KEYS.split())
    text = f"""
name = "bank"
[data]
source = "fashion-mnist"
[task]
mean = {ENCODING["mean"]}
std = {ENCODING["std"]}
[algorithms.{workload.name}]
{lines}
[subset_runs]
alpha = {ALPHA}
masks = {RESUMED}
"""
    study = Study.create(root, text)
    data_stage.run(Run(study, "cpu", 0, lambda progress: None))
    return study


# --- models per minute ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """Models to train in one process, one after the other."""

    workload: Workload
    runs: int


def compare(study: Study, workload: Workload, rounds: int, runs: int) -> dict[str, Any]:
    """Time all kinds, taking turns."""
    turns: dict[str, Callable[[], float]] = {
        "plain": lambda: _seconds(train_plainly, Turn(workload, runs), threads=1),
        "workers_1": lambda: fill(study, workload.name, 1, runs),
        "bare": lambda: _seconds(train_barely, Turn(workload, runs), threads=1),
        "workers_2": lambda: fill(study, workload.name, 2, runs),
        "plain_2_threads": lambda: _seconds(
            train_plainly, Turn(workload, max(1, runs // 6)), threads=2
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name in list(turns)[number % 2 :] + list(turns)[: number % 2]:
            seconds[name].append(turns[name]())
            log(f"{workload.name} {name}: {60 / seconds[name][-1]:.1f} per minute")
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "models_per_minute": {name: round(60 / value, 1) for name, value in median.items()},
        "slowest_and_fastest_round": {
            name: [round(60 / max(values), 1), round(60 / min(values), 1)]
            for name, values in seconds.items()
        },
        "ratio_vs_plain": {
            name: round(median["plain"] / median[name], 2) for name in ("workers_1", "workers_2")
        },
        "overhead_ms_a_run": round(1000 * (median["workers_1"] - median["bare"]), 1),
        "bytes_a_run": layout.run_file(study.root, workload.name, 0, 0).stat().st_size,
        "rounds": rounds,
        "runs_a_round": runs,
    }


def fill(study: Study, algorithm: str, workers: int, runs: int) -> float:
    """Seconds per run of the bank stage, once every worker is busy."""
    for path in layout.bank_folder(study.root, algorithm).glob("*"):
        path.unlink()
    study = with_masks(study, runs + workers)
    moments: list[float] = []

    def note(progress: Progress) -> None:
        moments.append(time.perf_counter())

    bank_stage.run(Run(study, "cpu", workers, note), algorithm)
    return (moments[-1] - moments[workers]) / runs


def with_masks(study: Study, masks: int) -> Study:
    """The study with a different number of masks."""
    runs = study.spec.subset_runs.model_copy(update={"masks": masks})
    return Study(study.root, study.spec.model_copy(update={"subset_runs": runs}))


def _seconds(function: Callable[[Turn], float], turn: Turn, threads: int) -> float:
    """Seconds per run in a new process with this number of threads."""
    found: list[float] = []
    run_jobs(function, [turn], 1, lambda job, result: found.append(result), threads)
    return found[0] / turn.runs


def train_barely(turn: Turn) -> float:
    """Worker: the engine's trainer and the outputs of its models; returns seconds."""
    from engine.training.outputs import evaluate
    from engine.training.trainer import train

    def train_one(number: int) -> None:
        subset = np.flatnonzero(draw_mask(0, number, len(data().train["label"]), ALPHA))
        model = untrained(turn.workload, number)
        recipe, arrays = turn.workload.recipe, data().train
        model = train(task(), model, arrays, ENCODING, recipe, number, "cpu", subset)
        for split in (data().train, data().test):
            evaluate(task(), model, split, ENCODING, 512, "cpu")

    return _timed(train_one, turn.runs)


def train_plainly(turn: Turn) -> float:
    """Worker: a plain loop over tensors in memory; returns seconds."""
    import torch
    from torch.nn import functional

    recipe = turn.workload.recipe
    pictures, labels = [], []
    for split in (data().train, data().test):
        scaled = torch.from_numpy(split["input"]).float() / 255
        pictures.append((scaled - ENCODING["mean"][0]) / ENCODING["std"][0])  # type: ignore[index]
        labels.append(torch.from_numpy(split["label"]))

    def train_one(number: int) -> None:
        rows = torch.from_numpy(np.flatnonzero(draw_mask(0, number, len(labels[0]), ALPHA)))
        model = untrained(turn.workload, number).train()
        optimizer = torch.optim.SGD(
            model.parameters(),
            recipe.learning_rate,
            recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=True,
        )
        steps = recipe.epochs * (len(rows) // recipe.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, steps, anneal_strategy="linear", cycle_momentum=False
        )
        for _ in range(recipe.epochs):
            shuffled = rows[torch.randperm(len(rows))]
            for batch in shuffled.split(recipe.batch_size):
                if len(batch) < recipe.batch_size:
                    continue
                loss = functional.cross_entropy(model(pictures[0][batch]), labels[0][batch])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
        model.eval()
        with torch.no_grad():
            for inputs, targets in zip(pictures, labels, strict=True):
                for batch, label in zip(inputs.split(512), targets.split(512), strict=True):
                    logits = model(batch)
                    own = logits.gather(1, label[:, None])[:, 0]
                    logits.scatter_(1, label[:, None], -torch.inf)
                    _ = own - logits.logsumexp(1)

    return _timed(train_one, turn.runs)


def _timed(train_one: Callable[[int], None], runs: int) -> float:
    train_one(0)  # reads and imports happen with the first model
    start = time.perf_counter()
    for number in range(runs):
        train_one(number)
    return time.perf_counter() - start


# --- resuming ------------------------------------------------------------------------------------


def resume(study: Study) -> dict[str, Any]:
    """Seconds to check that all runs exist, and to read them. Their outputs are noise."""
    algorithm, n_train, n_test = "mlp", study.dataset.n_train, study.dataset.n_test
    generator = np.random.default_rng(0)
    study = with_masks(study, RESUMED)
    for mask, seed in wanted_runs(study):
        outputs = generator.standard_normal(n_train + n_test, np.float32)
        shard = {
            "mask": pack(draw_mask(study.spec.seed, mask, n_train, ALPHA)),
            "train": outputs[:n_train],
            "test": outputs[n_train:],
        }
        fingerprint = bank_stage.run_fingerprint(study, algorithm, mask, seed)
        store.write_tensors(layout.run_file(study.root, algorithm, mask, seed), shard, fingerprint)
    checking, reading = [], []
    for _ in range(5):
        start = time.perf_counter()
        bank_stage.run(Run(study, "cpu", 2, lambda progress: None), algorithm)
        checking.append(time.perf_counter() - start)
        start = time.perf_counter()
        found = study.bank(algorithm)
        reading.append(time.perf_counter() - start)
    assert len(found) == RESUMED
    return {
        "runs": RESUMED,
        "seconds_to_check": round(statistics.median(checking), 3),
        "seconds_to_read": round(statistics.median(reading), 3),
    }


if __name__ == "__main__":
    from benchmarks import bank as this  # workers cannot import functions of __main__

    report("bank", this.measure, __doc__ or "")
