"""Replay of a loss in which the examples of a batch meet: each is a negative of the others."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.attribution.replay.query import adjoints_of
from engine.attribution.replay.reverse import walk_back
from engine.attribution.replay.states import Recording
from engine.models import build_model
from engine.models.calling import WEIGHTS
from engine.tasks import contrastive, image_text
from engine.training.stepping import Training
from tests.attribution.replay.trainings import PLENTY, error, recipe
from tests.tasks.test_pairs import ENCODING, arrays

SMALL = {"width": 2, "caption_width": 5, "dimensions": 4, "activation": "gelu"}


def cosine(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    found = contrastive.pairs(model, batch)
    return (found.pictures * found.captions).sum(1)


def prepare(batch: dict[str, Tensor], encoding: dict[str, Any]) -> dict[str, Tensor]:
    found = image_text.prepare(batch, encoding)
    return {**found, "pixel_values": found["pixel_values"].double()}


TASK = dataclasses.replace(
    image_text.TASK,
    prepare=prepare,
    outputs=(dataclasses.replace(contrastive.ALIGNMENT, value=cosine),),
)
TRAIN, TEST = arrays(0, 14), arrays(1, 4)


def training_of(weights: np.ndarray | None = None) -> Training:
    model = build_model("two-towers", {**SMALL, "pooling": "average"}, ENCODING, 1, seed=1)
    spec = recipe(epochs=3, batch_size=7, learning_rate=0.02)
    return Training(TASK, model.double(), TRAIN, ENCODING, spec, 3, "cpu", None, weights)


def batch_of_tests() -> dict[str, Tensor]:
    return prepare({name: torch.from_numpy(one) for name, one in TEST.items()}, ENCODING)


def outputs(weights: np.ndarray) -> np.ndarray:
    training = training_of(weights)
    with training.running():
        for _ in range(training.n_steps):
            training.advance()
    with torch.no_grad():
        return cosine(training.model.eval(), batch_of_tests()).numpy()


def test_derivatives_by_weights_agree_with_differences() -> None:
    training = training_of()
    with training.running():
        recording = Recording(training, PLENTY)
        recording.run()
        recording.to_last()
        adjoints, _ = adjoints_of(training, cosine, batch_of_tests(), None)
        scores = walk_back(recording, adjoints)
    h, truth = 1e-4, []
    for row in (0, 5, 13):
        step = h * (np.arange(14) == row)
        truth.append((outputs(1 + step) - outputs(1 - step)) / (2 * h))
    assert error(scores[:, [0, 5, 13]], np.stack(truth, 1)) < 1e-4


def test_an_example_of_weight_0_is_not_in_the_batch() -> None:
    """It is no negative of the others, as in a training without it."""
    model = build_model("two-towers", SMALL, ENCODING, 1, seed=1)
    raw = {name: torch.from_numpy(one) for name, one in TRAIN.items()}
    batch = image_text.prepare(raw, ENCODING)
    weights = torch.ones(14)
    weights[[3, 8]] = 0
    kept = weights > 0
    with torch.no_grad():
        found = contrastive.loss(model, {**batch, WEIGHTS: weights}, 0.0)
        alone = contrastive.loss(model, {name: one[kept] for name, one in batch.items()}, 0.0)
        plain = contrastive.loss(model, batch, 0.0)
        ones = contrastive.loss(model, {**batch, WEIGHTS: torch.ones(14)}, 0.0)
    torch.testing.assert_close(found[kept], alone)
    torch.testing.assert_close(ones, plain)
