"""Small trainings in float64 to replay, and derivatives of them by finite differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from engine.attribution.replay.query import adjoints_of
from engine.attribution.replay.reverse import walk_back
from engine.attribution.replay.states import Recording
from engine.store.spec import AlgorithmSpec
from engine.tasks import load_task
from engine.tasks.margin import margin
from engine.training.stepping import Training

N_TRAIN, N_TEST, N_CLASSES = 27, 4, 3
ENCODING = {"shape": [1, 6, 6], "mean": [0.5], "std": [0.25], "cell": 6}
PLENTY = 2**30
Batch = dict[str, torch.Tensor]
_TASK = load_task("image-classification")


def _in_float64(batch: Batch, encoding: dict[str, Any]) -> Batch:
    prepared = _TASK.prepare(batch, encoding)
    return {**prepared, "input": prepared["input"].double()}


def _loss(model: nn.Module, batch: dict[str, torch.Tensor], smoothing: float) -> torch.Tensor:
    return functional.cross_entropy(
        model(batch["input"]), batch["label"], reduction="none", label_smoothing=smoothing
    )


def _margin(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return margin(model(batch["input"]), batch["label"])


TASK = dataclasses.replace(
    _TASK,
    prepare=_in_float64,
    loss=_loss,
    outputs=(dataclasses.replace(_TASK.outputs[0], value=_margin),),
)
"""In float64 all the way, so that finite differences are exact enough; our tasks take logits in
float32."""


def pictures(n: int, seed: int) -> dict[str, np.ndarray]:
    """Pictures whose class is where the bright third lies; some labels are wrong."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, N_CLASSES, n)
    found = rng.integers(0, 160, (n, 1, 6, 6), dtype=np.uint8)
    for picture, label in zip(found, labels, strict=True):
        picture[0, label * 2 : label * 2 + 2] += 60
    labels[::7] = (labels[::7] + 1) % N_CLASSES
    return {"input": found, "label": labels.astype(np.int64)}


TRAIN, TEST = pictures(N_TRAIN, 0), pictures(N_TEST, 1)


def recipe(**changes: object) -> AlgorithmSpec:
    """Ten epochs of three steps, with a batch left over."""
    plain = {"epochs": 10, "batch_size": 8, "learning_rate": 0.03, "weight_decay": 0.01}
    return AlgorithmSpec.model_validate({**plain, **changes})


def mlp(*inside: nn.Module) -> nn.Module:
    """36 → 7 → 3 with tanh, and other layers before the activation."""
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 7), *inside, nn.Tanh(), nn.Linear(7, 3))


def made(make: Callable[[], nn.Module]) -> nn.Module:
    """A model with seeded weights, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().double()


def training_of(
    make: Callable[[], nn.Module], spec: AlgorithmSpec, weights: np.ndarray | None = None
) -> Training:
    return Training(TASK, made(make), TRAIN, ENCODING, spec, 3, "cpu", None, weights)


def test_batch() -> dict[str, torch.Tensor]:
    return TASK.prepare({name: torch.from_numpy(a) for name, a in TEST.items()}, ENCODING)


def outputs(make: Callable[[], nn.Module], spec: AlgorithmSpec, weights: np.ndarray) -> np.ndarray:
    """Outputs of the test examples after a training with weights, float64 `[n_test]`."""
    training = training_of(make, spec, weights)
    with training.running():
        for _ in range(training.n_steps):
            training.advance()
    with torch.no_grad():
        return TASK.model_output(training.model.eval(), test_batch()).numpy()


def replayed(
    make: Callable[[], nn.Module],
    spec: AlgorithmSpec,
    combinations: torch.Tensor | None = None,
    most: int = PLENTY,
) -> np.ndarray:
    """Scores of all outputs, or of combinations of them, `[queries, n_train]`."""
    training = training_of(make, spec)
    with training.running():
        recording = Recording(training, most)
        recording.run()
        assert recording.peak <= most
        recording.to_last()
        adjoints, _ = adjoints_of(training, TASK.model_output, test_batch(), combinations)
        return walk_back(recording, adjoints)


def differences(
    make: Callable[[], nn.Module], spec: AlgorithmSpec, directions: np.ndarray, h: float = 3e-5
) -> np.ndarray:
    """Derivatives of the outputs along directions of weights, `[n_test, directions]`.

    Four-point central differences: their error is of the order of h⁴.
    """
    found = []
    for direction in directions:
        near, far = (
            outputs(make, spec, 1 + k * h * direction) - outputs(make, spec, 1 - k * h * direction)
            for k in (1, 2)
        )
        found.append((8 * near - far) / (12 * h))
    return np.stack(found, axis=1)


def error(scores: np.ndarray, truth: np.ndarray) -> float:
    """Largest difference relative to the largest derivative."""
    return float(np.abs(scores - truth).max() / np.abs(truth).max())
