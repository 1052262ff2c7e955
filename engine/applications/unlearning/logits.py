"""Class logits of several models on training and test examples, for audits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.build.tasks import task_of
from engine.store.errors import StoreError
from engine.study.examples import read_stacked_arrays
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ClassLogits:
    """Class logits of N models.

    Attributes:
        rows: Training rows, ascending int64 `[k]`.
        train: Logits of those rows, float32 `[N, k, classes]`.
        test: Logits of all test examples, float32 `[N, n_test, classes]`.
    """

    rows: np.ndarray
    train: np.ndarray
    test: np.ndarray

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Logits of some of the training rows, `[N, len(rows), classes]`."""
        found: np.ndarray = self.train[:, np.searchsorted(self.rows, rows)]
        return found


def class_logits(
    study: StudyReader, model: torch.nn.Module, rows: np.ndarray, device: str
) -> dict[str, np.ndarray]:
    """One model's shard for `read_logits`: logits of training rows and of all test examples."""
    return {
        "rows": rows,
        "train_logits": train_logits(study, model, rows, device),
        "test_logits": _logits(study, model, read_stacked_arrays(study, "test"), device),
    }


def train_logits(
    study: StudyReader, model: torch.nn.Module, rows: np.ndarray, device: str
) -> np.ndarray:
    """One model's logits of training rows, float32 `[k, classes]`."""
    arrays = read_stacked_arrays(study, "train")
    some = {name: np.asarray(array[rows]) for name, array in arrays.items()}
    return _logits(study, model, some, device)


def _logits(
    study: StudyReader, model: torch.nn.Module, arrays: dict[str, np.ndarray], device: str
) -> np.ndarray:
    from engine.training.outputs import evaluate

    task, encoding = task_of(study), study.dataset.encoding
    return evaluate(task, model, arrays, encoding, 512, device)["logits"]


def read_logits(files: Sequence[Path], rows: np.ndarray) -> ClassLogits:
    """Class logits of several models, one shard each.

    Args:
        files: Shards of retrained models that keep class logits, or of models that unlearned.
        rows: Training rows, ascending.

    Raises:
        StoreError: A shard is missing or broken, or does not hold all of these rows.
    """
    train = read_train_logits(files, rows)
    test = [store.read_tensors(file, file.parent.name)["test_logits"] for file in files]
    return ClassLogits(rows, train, np.stack(test))


def read_train_logits(files: Sequence[Path], rows: np.ndarray) -> np.ndarray:
    """Logits of training rows only, float32 `[N, k, classes]`. Raises as `read_logits`."""
    found = []
    for file in files:
        shard = store.read_tensors(file, file.parent.name)
        kept = shard.get("rows", np.empty(0, np.int64))
        if not np.isin(rows, kept).all():
            raise StoreError(
                f"{file} does not have the class logits of this audit: run the audit again."
            )
        found.append(shard["train_logits"][np.searchsorted(kept, rows)])
    return np.stack(found)
