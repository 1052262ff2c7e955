"""Batches of a study's examples, and the stored out-to-loss gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.attribution.trak.solver import Solver
from engine.build.tasks import task_of
from engine.store import layout
from engine.study.examples import read_stacked_arrays
from engine.study.left_out import left_out
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    from engine.attribution.trak.plan import Batch


def batches_of(
    study: StudyReader,
    split: str,
    device: str,
    batch_size: int,
    start: int = 0,
    stop: int | None = None,
) -> Callable[[], Iterator[Batch]]:
    """Return a function that iterates over prepared batches of a split's rows, on every call.

    Examples of a task that pads them come by length; see `batches_by_length`.

    Args:
        split: `train` or `test`.
        start, stop: First row, and the row after the last; None: to the end.
    """
    from engine.training.outputs import batches_by_length

    assert split in ("train", "test")
    task, encoding = task_of(study), study.dataset.encoding
    arrays = read_stacked_arrays(study, "train" if split == "train" else "test")
    return lambda: batches_by_length(task, arrays, encoding, batch_size, device, start, stop)


def stored_out_to_loss(study: StudyReader, algorithm: str, checkpoint: int) -> np.ndarray:
    """Q of every training example at one checkpoint, float32 `[n_train]`."""
    path = layout.outputs_file(study.root, algorithm, checkpoint, "train")
    return np.array(store.read_tensors(path)["out_to_loss"])


def mean_out_to_loss(
    study: StudyReader, algorithm: str, checkpoints: int, solver: Solver
) -> np.ndarray:
    """Mean of Q over the first checkpoints, tempered: the factor of the scores, `[n_train]`. It is
    0 for examples that the algorithm is not trained on."""
    import torch

    from engine.attribution.trak.linear_system import temper

    mean = np.zeros(study.dataset.n_train, np.float32)
    for checkpoint in range(checkpoints):
        outputs = store.read_tensors(
            layout.outputs_file(study.root, algorithm, checkpoint, "train")
        )
        mean += outputs["out_to_loss"] / np.float32(checkpoints)
    tempered: np.ndarray = temper(torch.from_numpy(mean), solver).numpy()
    tempered[left_out(study, algorithm)] = 0
    return tempered
