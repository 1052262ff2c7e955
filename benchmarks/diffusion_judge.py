"""A classifier of real clothes that judges pictures which models made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn

from benchmarks._report import log
from engine.data.assets import asset
from engine.models import build_model
from engine.store.spec import AlgorithmSpec
from engine.tasks import load_task
from engine.training.outputs import evaluate
from engine.training.trainer import train
from engine.training.weights import load_weights, save_weights


@dataclass(frozen=True)
class Judgment:
    """What the classifier makes of pictures.

    Attributes:
        classes: Numbers of the likeliest ones, `[n]`.
        confidence: Their probabilities, `[n]`.
        features: What its last layer sees, `[n, features]`.
    """

    classes: np.ndarray
    confidence: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Judge:
    """The classifier."""

    model: nn.Module
    encoding: dict[str, Any]

    def __call__(self, pictures: np.ndarray) -> Judgment:
        """Judge pictures `[n, 1, h, w]` uint8."""
        task = load_task("image-classification")
        given = {"input": pictures, "label": np.zeros(len(pictures), np.int64)}
        found = evaluate(task, self.model, given, self.encoding, 512, "cpu")
        probabilities = torch.from_numpy(found["logits"]).softmax(1).numpy()
        return Judgment(
            probabilities.argmax(1), probabilities.max(1), np.asarray(found["embeddings"])
        )


def judge_of(path: Path, epochs: int) -> Judge:
    """The classifier in a file; it is trained on all shipped training pictures if there is none."""
    pixels, labels = _shipped()
    encoding = {"shape": list(pixels.shape[1:]), "mean": [0.286], "std": [0.353]}
    model = build_model("resnet-small", {}, encoding, int(labels.max()) + 1, seed=0)
    if path.exists():
        load_weights(path, model)
        return Judge(model, encoding)
    log("training the classifier that judges pictures")
    recipe = AlgorithmSpec(architecture="resnet-small", epochs=epochs)
    task = load_task("image-classification")
    known = {"input": pixels, "label": labels}
    model = train(task, model, known, encoding, recipe, 0, "cpu").eval()
    save_weights(path, model, "judge", {})
    return Judge(model, encoding)


def _shipped() -> tuple[np.ndarray, np.ndarray]:
    """Pictures `[n, 1, 28, 28]` and their classes, in the order of the study's."""
    file = asset("fashion-mnist") / "train.parquet"
    table = datasets.Dataset.from_parquet(str(file), keep_in_memory=True)
    pixels = np.stack([np.asarray(one, np.uint8) for one in table["image"]])[:, None]
    return pixels, np.array(table["label"], np.int64)
