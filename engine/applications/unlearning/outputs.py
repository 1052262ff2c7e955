"""What audits compare of several models: their outputs on training and test examples.

These are class logits, from which margins and answers follow; of generated texts, the log-odds of
target tokens and how far each leads; or, of diffusion, the errors of denoising, of which no answers
follow (`engine.tasks.outcomes.audited_records`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.applications.unlearning.rows import audited_of, matched_of, outcomes_of, own_of
from engine.build.tasks import task_to_compare
from engine.store.errors import StoreError
from engine.store.layout import Split
from engine.study.examples import read_stacked_arrays
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Outputs:
    """Outputs of N models on some examples.

    Attributes:
        matched: What unlearning matches, such as class logits: float32 `[N, n, m]`.
        record: What answers follow from, `[N, n, …]`; of classes, and where there are no answers,
            the same array.
        own: The right answers, int64 `[n]`.
    """

    matched: np.ndarray
    record: np.ndarray
    own: np.ndarray


@dataclass(frozen=True)
class AuditedOutputs:
    """Outputs of N models on training rows and on the test examples.

    Attributes:
        rows: Training rows, ascending int64 `[k]`.
        train: Of those rows.
        test: Of all test examples.
    """

    rows: np.ndarray
    train: Outputs
    test: Outputs

    def of(self, rows: np.ndarray) -> Outputs:
        """Of some of the training rows."""
        places = np.searchsorted(self.rows, rows)
        train = self.train
        return Outputs(train.matched[:, places], train.record[:, places], train.own[places])


def margins_of(study: StudyReader, outputs: Outputs) -> np.ndarray:
    """Margins, or what else the task's first output is: float64 `[N, n]`."""
    return matched_of(study).output(outputs.matched, outputs.own)


def right_of(study: StudyReader, outputs: Outputs) -> np.ndarray | None:
    """Which answers are right, bool `[N, n]`; None without outcomes."""
    outcomes = outcomes_of(study)
    if outcomes is None:
        return None
    found: np.ndarray = outcomes.answers(outputs.record) == outputs.own
    return found


def outputs_of_model(
    study: StudyReader, model: torch.nn.Module, rows: np.ndarray, device: str
) -> dict[str, np.ndarray]:
    """One model's shard for `read_outputs`: outputs on training rows and on all test examples."""
    tests = _evaluated(study, model, read_stacked_arrays(study, "test"), device)
    return {
        "rows": rows,
        **{f"train_{name}": array for name, array in _of_rows(study, model, rows, device).items()},
        **{f"test_{name}": array for name, array in tests.items()},
    }


def train_outputs(
    study: StudyReader, model: torch.nn.Module, rows: np.ndarray, device: str
) -> np.ndarray:
    """What is matched, of one model on training rows: float32 `[k, m]`."""
    return _of_rows(study, model, rows, device)[matched_of(study).record]


def _of_rows(
    study: StudyReader, model: torch.nn.Module, rows: np.ndarray, device: str
) -> dict[str, np.ndarray]:
    arrays = read_stacked_arrays(study, "train")
    some = {name: np.asarray(array[rows]) for name, array in arrays.items()}
    return _evaluated(study, model, some, device)


def _evaluated(
    study: StudyReader, model: torch.nn.Module, arrays: dict[str, np.ndarray], device: str
) -> dict[str, np.ndarray]:
    from engine.training.outputs import evaluate

    task, encoding = task_to_compare(study, model), study.dataset.encoding
    found = evaluate(task, model, arrays, encoding, 512, device)
    return {name: found[name] for name in audited_of(study)}


def read_outputs(study: StudyReader, files: Sequence[Path], rows: np.ndarray) -> AuditedOutputs:
    """Outputs of several models, one shard each.

    Args:
        files: Shards of retrained models that keep such outputs, or of models that unlearned.
        rows: Training rows, ascending.

    Raises:
        StoreError: A shard is missing or broken, or does not hold all of these rows.
    """
    return AuditedOutputs(
        rows, read_train_outputs(study, files, rows), read_test_outputs(study, files)
    )


def read_train_outputs(study: StudyReader, files: Sequence[Path], rows: np.ndarray) -> Outputs:
    """Outputs on training rows only. Raises as `read_outputs`."""
    return _read(study, files, "train", rows)


def read_test_outputs(
    study: StudyReader, files: Sequence[Path], rows: np.ndarray | None = None
) -> Outputs:
    """Outputs on some test examples, or all. Raises StoreError if a shard is missing or broken."""
    return _read(study, files, "test", rows)


def _read(
    study: StudyReader, files: Sequence[Path], split: Split, rows: np.ndarray | None
) -> Outputs:
    names = audited_of(study)
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for file in files:
        shard = store.read_tensors(file, file.parent.name)
        places: np.ndarray | slice = slice(None) if rows is None else rows
        if split == "train" and rows is not None:
            kept = shard.get("rows", np.empty(0, np.int64))
            if not np.isin(rows, kept).all():
                raise StoreError(
                    f"{file} does not have the outputs of this audit: run the audit again."
                )
            places = np.searchsorted(kept, rows)
        for name in names:
            found[name].append(shard[f"{split}_{name}"][places])
    arrays = {name: np.stack(some) for name, some in found.items()}
    own = own_of(study) if split == "test" else own_of(study, rows)
    if split == "test" and rows is not None:
        own = own[rows]
    return Outputs(arrays[names[0]], arrays[names[-1]], own)
