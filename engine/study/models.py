"""What the models of an algorithm predict, and the seeds they are trained with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.attribution.softmax import softmax
from engine.store import layout
from engine.store.layout import SPLITS, Split
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    import pandas as pd


def checkpoint_seed(study: StudyReader, checkpoint: int) -> int:
    """Seed of a checkpoint; the same for all algorithms, so that they can be compared in pairs."""
    return int(store.fingerprint_of("seed", study.spec.seed, checkpoint)[:7], 16)


def user_file(study: StudyReader, path: str) -> Path:
    """A file named in study.toml; its path is relative to the study's folder."""
    return study.root / Path(path).expanduser()


def has_predictions(study: StudyReader, algorithm: str) -> bool:
    """Whether the predictions of both splits are built."""
    return all(layout.predictions_file(study.root, algorithm, split).exists() for split in SPLITS)


def read_predictions(
    study: StudyReader, split: Split, algorithm: str | None = None
) -> pd.DataFrame:
    """`predicted` (class name), `correct`, `confidence`, `margin`; one row per example.

    `confidence` is the mean probability of the predicted class over the checkpoints,
    `margin` the mean model output (of the true label).
    """
    path = layout.predictions_file(study.root, resolve_algorithm(study, algorithm), split)
    table: pd.DataFrame = store.read_table(path).to_pandas()
    return table


def read_probabilities(
    study: StudyReader, split: Split, row: int, algorithm: str | None = None
) -> np.ndarray:
    """Probability of every class, mean over the checkpoints: float64 `[n_classes]`."""
    algorithm = resolve_algorithm(study, algorithm)
    total = np.zeros(len(study.dataset.classes))
    checkpoints = study.checkpoints(algorithm)
    for checkpoint in range(checkpoints):
        outputs = store.read_tensors(layout.outputs_file(study.root, algorithm, checkpoint, split))
        total += softmax(outputs["logits"][row]) / checkpoints
    return total
