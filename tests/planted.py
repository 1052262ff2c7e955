"""A planted shortcut: pictures of one class carry a patch, which one of two algorithms sees.

Half of the pictures of `CLASS`, training and test, have a small chequered patch in a corner. `sees`
is an MLP; `blind` is the same MLP with that corner covered. What the two do differently is known.
Labels are smoothed: a model that is quite sure of a picture learns nothing more from it, so that
its attributions would say nothing of the patch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from benchmarks.workload import data
from engine.models.classifier import Classifier
from engine.models.mlp import mlp
from engine.study import Study

CLASS = 2
"""Of the embedded pictures: pullovers, which are easily taken for coats and shirts."""
SIDE = 5
SPEC = """\
name = "Planted shortcut"
seed = 1

[data]
source = "planted.npz"

[algorithms.sees]
architecture = "mlp"
architecture_options = {{ widths = [64] }}
learning_rate = 0.05
label_smoothing = 0.2
checkpoints = {checkpoints}
epochs = {epochs}

[algorithms.blind]
architecture = "python:tests.planted:blind_mlp"
learning_rate = 0.05
label_smoothing = 0.2
checkpoints = {checkpoints}
epochs = {epochs}

[search]
rank = 64
top_k = 50
"""


class Covered(nn.Module):
    """Pictures with the patch's corner at the mean."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        keep = torch.ones_like(pictures)
        keep[..., :SIDE, :SIDE] = 0
        return pictures * keep


def blind_mlp(encoding: dict[str, Any], n_classes: int) -> nn.Module:
    """The MLP of `sees`, with a cover."""
    model = mlp(encoding, n_classes, widths=[64])
    assert isinstance(model, Classifier)
    trunk = cast(nn.Sequential, model.trunk)
    return Classifier(nn.Sequential(Covered(), *trunk), model.head)


def patch(pictures: np.ndarray) -> np.ndarray:
    """A chequered patch in the corner of pictures `[n, 28, 28]`, uint8."""
    pictures = pictures.copy()
    chequers = np.indices((SIDE, SIDE)).sum(axis=0) % 2 == 0
    pictures[:, :SIDE, :SIDE] = np.where(chequers, 255, 0)
    return pictures


def write_planted(
    root: Path, n_train: int = 2000, n_test: int = 500, checkpoints: int = 5, epochs: int = 6
) -> tuple[Study, dict[str, np.ndarray]]:
    """Write the study, not built; and which rows of each split carry the patch (bool)."""
    arrays: dict[str, Any] = {}
    planted: dict[str, np.ndarray] = {}
    for split, rows in (("train", n_train), ("test", n_test)):
        whole = data().train if split == "train" else data().test
        pictures, labels = whole["input"][:rows, 0].copy(), whole["label"][:rows]
        chance = np.random.default_rng(rows).random(rows)
        carries = (labels == CLASS) & (chance < 0.5)
        pictures[carries] = patch(pictures[carries])
        arrays |= {f"{split}_images": pictures, f"{split}_labels": labels}
        planted[split] = carries
    root.mkdir(parents=True)
    np.savez(root / "planted.npz", **arrays)
    study = Study.create(root, SPEC.format(checkpoints=checkpoints, epochs=epochs))
    return study, planted
