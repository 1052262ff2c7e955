"""The workload of the benchmarks: DESIGN section 6, through the engine's own code.

It has the included 5,000 + 1,000 pictures of Fashion-MNIST, a CNN (`resnet-small`) and an MLP,
checkpoints trained on all pictures, and the ground truth: margins of the test pictures from models
trained on random halves. *Test* masks are used only for evaluation, *validation* masks to choose
defaults, and *fit* masks, with one run each, to fit datamodels. The three sets of masks are
disjoint.

Trained models are kept in `.bench/`, one file per job, named by a fingerprint of its inputs: a
second run trains nothing, and an interrupted run continues. `prepare_all` trains everything at
once.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from engine import store
from engine.running.processes import run_jobs
from engine.store.spec import AlgorithmSpec, DataSpec
from engine.tasks import Task, load_task

if TYPE_CHECKING:
    import torch

    from engine.attribution.trak.plan import Batch

CACHE = Path(__file__).resolve().parents[1] / ".bench"
CODE = 1
"""Raised when the same recipe would give a different model."""

ENCODING = {"shape": [1, 28, 28], "mean": [0.286], "std": [0.353], "cell": 28}
N_CLASSES = 10
Split = Literal["train", "test"]
Purpose = Literal["test", "validation", "fit"]

HALVES: dict[Purpose, range] = {
    "test": range(100),
    "validation": range(100, 150),
    "fit": range(150, 1150),
}
"""Numbers of the masks."""


@dataclass(frozen=True)
class Workload:
    """A learning algorithm on the embedded dataset.

    Attributes:
        name: `cnn` or `mlp`.
        recipe: As in study.toml.
        checkpoints: Models trained on all training pictures.
        seeds: Models trained on each test and validation half; their margins are averaged.
        fit_runs: Number of fit masks to train on, with one run each.
    """

    name: str
    recipe: AlgorithmSpec
    checkpoints: int
    seeds: int
    fit_runs: int = 0


RECIPE = AlgorithmSpec(
    epochs=10,
    batch_size=128,
    optimizer="sgd",
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    schedule="triangular",
    warmup=0.2,
    label_smoothing=0.0,
    augmentations=[],
)
CNN = Workload(
    "cnn",
    RECIPE.model_copy(update={"architecture": "resnet-small", "learning_rate": 0.2}),
    10,
    1,
    300,
)
MLP = Workload(
    "mlp", RECIPE.model_copy(update={"architecture": "mlp", "learning_rate": 0.05}), 5, 5, 1000
)


@dataclass(frozen=True)
class Model:
    """A job: train one model.

    Attributes:
        workload: What to train.
        half: Number of the mask to train on; None: train on all pictures and keep the weights.
        seed: Seed of the initial weights and of the order.
    """

    workload: Workload
    half: int | None
    seed: int


# --- data ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """The included dataset: `input` [n, 1, 28, 28] uint8 and `label` [n] int64 of each split."""

    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    fingerprint: str


@functools.cache
def data() -> Data:
    """Read the included dataset."""
    from engine.data.sources import load_source

    source = load_source(DataSpec(source="fashion-mnist"), CACHE)
    options = task().options()
    train, test = (
        task().encode(list(rows), options, ENCODING).arrays for rows in (source.train, source.test)
    )
    digest = hashlib.sha256()
    for arrays in (train, test):
        for name in sorted(arrays):
            digest.update(arrays[name].tobytes())
    return Data(train, test, digest.hexdigest())


@functools.cache
def task() -> Task:
    """The image classification task."""
    return load_task("image-classification")


def batches_of(split: Split, batch_size: int = 128) -> Callable[[], Iterator[Batch]]:
    """A function that returns a new iterator over the encoded batches of a split."""
    from engine.training.outputs import batches

    arrays = data().train if split == "train" else data().test
    return lambda: batches(task(), arrays, ENCODING, batch_size, "cpu")


def mask(half: int) -> np.ndarray:
    """Boolean `[n_train]`: a random half of the training pictures."""
    n = len(data().train["label"])
    chosen = np.zeros(n, dtype=bool)
    chosen[np.random.default_rng([2_303_14186, half]).permutation(n)[: n // 2]] = True
    return chosen


# --- models --------------------------------------------------------------------------------------


def checkpoint(workload: Workload, number: int) -> torch.nn.Module:
    """One of the models trained on all training pictures, in eval mode."""
    from engine.training.outputs import to_device
    from engine.training.weights import load_weights

    prepare([Model(workload, None, number)])
    model = untrained(workload, 0)
    load_weights(checkpoint_file(workload, number), model)
    return to_device(model, "cpu").eval()


def checkpoint_file(workload: Workload, number: int) -> Path:
    """Path of a checkpoint's weights; its stem is its fingerprint."""
    return _path(Model(workload, None, number))


def truth(
    workload: Workload, purpose: Purpose, most: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(masks `[m, n_train]` bool, mean margins `[m, n_test]`) of models trained on halves: all of
    them, or the first."""
    halves = halves_of(workload, purpose)[:most]
    jobs = {half: _runs(workload, half) for half in halves}
    prepare([job for runs in jobs.values() for job in runs])
    margins = [
        np.mean([store.read_tensors(_path(job))["margin"] for job in runs], axis=0)
        for runs in jobs.values()
    ]
    return np.stack([mask(half) for half in halves]), np.stack(margins)


def prepare_all(purposes: Sequence[Purpose] = ("test", "validation"), workers: int = 2) -> None:
    """Train all checkpoints and the runs of these masks; returns at once if none is missing."""
    for workload in (MLP, CNN):
        halves = [half for purpose in purposes for half in halves_of(workload, purpose)]
        jobs = [Model(workload, None, seed) for seed in range(workload.checkpoints)]
        jobs += [job for half in halves for job in _runs(workload, half)]
        prepare(jobs, workers)


def prepare(jobs: list[Model], workers: int = 2) -> None:
    """Train missing models in one-thread processes."""
    missing = [job for job in jobs if not _path(job).exists()]
    run_jobs(train, missing, workers, lambda job, result: None)


def train(job: Model) -> None:
    """Worker: train one model; keep its weights, or its margins on the test pictures."""
    from engine.training import trainer
    from engine.training.outputs import evaluate
    from engine.training.weights import save_weights

    seed = int(store.fingerprint_of("benchmark", job.half, job.seed)[:7], 16)
    subset = None if job.half is None else np.flatnonzero(mask(job.half))
    model = untrained(job.workload, seed)
    recipe = job.workload.recipe
    trainer.train(task(), model, data().train, ENCODING, recipe, seed, "cpu", subset)
    path = _path(job)
    if job.half is None:
        save_weights(path, model, path.stem)
    else:
        outputs = evaluate(task(), model, data().test, ENCODING, 500, "cpu")
        store.write_tensors(path, {"margin": outputs["output"]}, path.stem)


def untrained(workload: Workload, seed: int) -> torch.nn.Module:
    """The workload's architecture with seeded weights."""
    from engine.models import build_model

    recipe = workload.recipe
    return build_model(recipe.architecture, recipe.architecture_options, ENCODING, N_CLASSES, seed)


def halves_of(workload: Workload, purpose: Purpose) -> range:
    """Numbers of the masks used to train this workload's models."""
    return HALVES[purpose][: workload.fit_runs] if purpose == "fit" else HALVES[purpose]


def _runs(workload: Workload, half: int) -> list[Model]:
    seeds = 1 if half in HALVES["fit"] else workload.seeds
    return [Model(workload, half, seed) for seed in range(seeds)]


def _path(job: Model) -> Path:
    recipe = job.workload.recipe.model_dump(exclude_unset=True)
    fingerprint = store.fingerprint_of(
        CODE, data().fingerprint, ENCODING, recipe, job.half, job.seed
    )
    kind = "checkpoints" if job.half is None else "runs"
    return CACHE / job.workload.name / kind / f"{fingerprint}.safetensors"
