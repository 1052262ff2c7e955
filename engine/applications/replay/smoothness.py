"""How smooth an algorithm's training is, kept in the study, and what would make it smoother.

A derivative predicts removals as far as training is smooth
(`engine.attribution.replay.smoothness`). It is measured once for each algorithm, with three
trainings of its first model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.build.models import initial_model, versions
from engine.build.replaying import replay_fingerprint
from engine.build.tasks import task_for, task_of
from engine.running import processes
from engine.store import layout
from engine.store.quantities import SMOOTHNESS
from engine.store.spec import AlgorithmSpec
from engine.study.examples import read_stacked_arrays
from engine.study.left_out import trained_on
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    from torch import nn

TRAININGS = 3
SMOOTH, PARTLY = 0.8, 0.5
_TESTS = 256
"""Test examples whose outputs are looked at."""
_LARGE_BATCH = 250


@dataclass(frozen=True)
class Smoothness:
    """Smoothness of an algorithm's training.

    Attributes:
        value: −1 to 1; 1 is smooth, about 0 not smooth at all.
        levers: What would make it smoother, one phrase each.
    """

    value: float
    levers: tuple[str, ...]

    @property
    def smooth(self) -> bool:
        """Whether derivatives predict the removal of a few percent of the examples."""
        return self.value >= SMOOTH

    @property
    def words(self) -> str:
        """What the value means, one sentence."""
        if self.smooth:
            return "Training is smooth: exact scores predict the removal of a few examples."
        if self.value >= PARTLY:
            return "Training is only partly smooth: trust the order of exact scores, not sizes."
        return (
            "Training is not smooth: exact scores hold for tiny changes of weights, and say little "
            "about removals."
        )


@dataclass(frozen=True)
class Measure:
    """A job: measure one algorithm."""

    root: Path
    algorithm: str
    device: str


def read_smoothness(study: StudyReader, algorithm: str) -> Smoothness | None:
    """What was measured; None if it was not, with this data and recipe."""
    fingerprint = replay_fingerprint(study, algorithm)
    path = _file(study.root, algorithm, fingerprint)
    if not path.exists():
        return None
    value = float(store.read_tensors(path, fingerprint)["smoothness"][0])
    return Smoothness(value, tuple(store.read_metadata(path)["levers"]))


def smoothness_words(study: StudyReader, algorithm: str) -> str:
    """How far kept exact scores predict removals, in words; empty if it was not measured."""
    found = read_smoothness(study, algorithm)
    return "" if found is None else f"Smoothness {SMOOTHNESS.text(found.value)}. {found.words}"


def measured_smoothness(
    study: StudyReader, algorithm: str, device: str = "auto", workers: int | None = None
) -> Smoothness:
    """Smoothness of an algorithm's training; three trainings unless it was measured before."""
    if found := read_smoothness(study, algorithm):
        return found
    device = processes.pick_device(device)
    workers = processes.default_workers(device) if workers is None else workers
    job = Measure(study.root, algorithm, device)
    processes.run_jobs(measure, [job], min(1, workers), lambda job, result: None)
    found = read_smoothness(study, algorithm)
    assert found is not None
    return found


def measure(job: Measure) -> None:
    """Worker: train three times, and keep the smoothness and the levers."""
    from engine.attribution.replay.smoothness import smoothness
    from engine.training.outputs import evaluate
    from engine.training.trainer import train

    study = StudyReader.open(job.root)
    spec, seed = study.spec.algorithms[job.algorithm], checkpoint_seed(study, 0)
    encoding, training = study.dataset.encoding, read_stacked_arrays(study, "train")
    rows = np.random.default_rng(0).permutation(study.dataset.n_test)[:_TESTS]
    some = {name: array[rows] for name, array in read_stacked_arrays(study, "test").items()}
    subset = trained_on(study, job.algorithm)

    def outputs(weights: np.ndarray) -> np.ndarray:
        model = initial_model(study, spec, seed)
        model = train(
            task_of(study), model, training, encoding, spec, seed, job.device, subset, None, weights
        )
        task = task_for(study, model, seed)
        found: np.ndarray = evaluate(task, model, some, encoding, spec.batch_size, job.device)[
            "output"
        ]
        return found

    value = smoothness(outputs, study.dataset.n_train, seed)
    fingerprint = replay_fingerprint(study, job.algorithm)
    levers = levers_of(initial_model(study, spec, seed), spec)
    store.write_tensors(
        _file(study.root, job.algorithm, fingerprint),
        {"smoothness": np.array([value], np.float32)},
        fingerprint,
        {"levers": levers, "device": job.device, **versions()},
    )


def levers_of(model: nn.Module, spec: AlgorithmSpec) -> list[str]:
    """What would make the training of a model smoother, most helpful first."""
    from torch import nn

    kinked = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Hardtanh, nn.Hardswish)
    largest = tuple(
        getattr(nn, f"{kind}MaxPool{n}d") for kind in ("", "Adaptive") for n in (1, 2, 3)
    )
    checks: list[tuple[Callable[[nn.Module], bool], str]] = [
        (lambda one: isinstance(one, kinked), 'GELU instead of ReLU (`activation = "gelu"`)'),
        (
            lambda one: isinstance(one, largest) or getattr(one, "pooling", None) == "max",
            'average pooling instead of the maximum (`pooling = "average"`)',
        ),
    ]
    modules = list(model.modules())
    found = [words for check, words in checks if any(check(module) for module in modules)]
    if spec.batch_size < _LARGE_BATCH:
        found.append(f"larger batches (`batch_size` is {spec.batch_size}; try 250 to 500)")
    found.append(f"a lower `learning_rate` than {spec.learning_rate:g}, with more epochs")
    if any("BatchNorm" in type(module).__name__ for module in modules):
        found.append("GroupNorm or LayerNorm instead of BatchNorm")
    return found


def _file(root: Path, algorithm: str, fingerprint: str) -> Path:
    return layout.replay_file(root, algorithm, fingerprint, "smoothness")
