"""What all multi-label tasks share: any number of classes an example, a yes or no for each.

The loss is the binary cross entropy, averaged over the classes. The margin of a class is the
log-odds of the right answer for it: the logit where the example has the class, else minus the
logit. The default output is the mean of these margins. A single class's output is its log-odds,
whatever the example's labels are, so that it answers for examples without labels too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from engine.models.answers import described, logits_of
from engine.models.calling import LABEL, call
from engine.store.errors import SpecError
from engine.store.records import OutputChoice
from engine.store.text import class_list
from engine.tasks import Encoded, ModelOutput, Task

if TYPE_CHECKING:
    from datasets import Dataset

    from engine.attribution.trak.plan import Batch

RECORD = "logits"
CLASS = "class:{}"
"""The family of outputs of single classes (`make_output`)."""


def multilabel_task(inputs: Task, name: str) -> Task:
    """The multi-label task on the inputs of a classification task.

    Args:
        inputs: Gives how rows become inputs, and how those are shown, prepared and augmented.
        name: As in study.toml.
    """
    return Task(
        name=name,
        views=inputs.views,
        labels="classes",
        outcomes=None,
        options=inputs.options,
        plan_encoding=_planning(inputs),
        encode=_encoding(inputs),
        accept=inputs.accept,
        remarks=inputs.remarks,
        prepare=inputs.prepare,
        lengths=inputs.lengths,
        fit=inputs.fit,
        augment=inputs.augment,
        loss=loss,
        width=len,
        record=record,
        summarize=summarize,
        outputs=(MEAN_MARGIN,),
        choices=CHOICES,
        make_output=make_output,
    )


def _planning(inputs: Task) -> Callable[[Dataset, Any, Sequence[str]], dict[str, Any]]:
    def plan_encoding(rows: Dataset, options: Any, classes: Sequence[str]) -> dict[str, Any]:
        """The encoding of the inputs, and `classes`, how many there are."""
        return {**inputs.plan_encoding(rows, options, classes), "classes": len(classes)}

    return plan_encoding


def _encoding(
    inputs: Task,
) -> Callable[[Sequence[dict[str, Any]], Any, dict[str, Any]], Encoded]:
    def encode(rows: Sequence[dict[str, Any]], options: Any, encoding: dict[str, Any]) -> Encoded:
        """The inputs' arrays, and uint8 `label` [rows, classes]: 1 for each class of a row.

        An example from outside has no labels: its `label` is 0, not a list.
        """
        found = inputs.encode([{**row, "label": 0} for row in rows], options, encoding)
        labels = np.zeros((len(rows), encoding["classes"]), np.uint8)
        for row, target in zip(rows, labels, strict=True):
            target[row["label"] if isinstance(row["label"], list) else []] = 1
        return Encoded({**found.arrays, LABEL: labels}, found.columns, found.thumbnails)

    return encode


# --- models ---------------------------------------------------------------------------------------


def logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Logits `[batch, classes]` of a prepared batch.

    Raises:
        SpecError: The model does not give a logit for each class.
    """
    found = logits_of(call(model, batch))
    if found.shape != batch[LABEL].shape:
        raise SpecError(
            f"the model gives {described(found)}, and a multi-label model gives a logit for each "
            f"class of each example: {list(batch[LABEL].shape)}."
        )
    return found


def loss(model: torch.nn.Module, batch: Batch, label_smoothing: float) -> torch.Tensor:
    """Binary cross entropies `[batch]`, averaged over the classes.

    Smoothing moves each target towards ½.
    """
    targets = batch[LABEL].to(torch.float32) * (1 - label_smoothing) + label_smoothing / 2
    found = logits(model, batch)
    return functional.binary_cross_entropy_with_logits(
        found, targets.to(found.dtype), reduction="none"
    ).mean(1)


def margins(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Log-odds of the right answer for each class, `[batch, classes]`."""
    found = logits(model, batch)
    return torch.where(batch[LABEL] > 0, found, -found)


def mean_margin(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean margins `[batch]`."""
    return margins(model, batch).mean(1)


def mean_weight(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Q `[batch]`: how fast the loss falls where all margins rise alike, the mean of 1 − p."""
    return torch.sigmoid(-margins(model, batch)).mean(1)


def make_output(name: str, numbers: tuple[int, ...]) -> ModelOutput:
    """The log-odds that an example has one class, by its number, whatever its labels are.

    Q is negative for the examples that do not have the class.
    """
    (number,) = numbers

    def value(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return logits(model, batch)[:, number]

    def weight(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        found = logits(model, batch)
        there = batch[LABEL][:, number].to(found.dtype)
        return (there - torch.sigmoid(found[:, number])) / found.shape[1]

    def from_record(records: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(records[RECORD], np.float64)[:, number]

    return ModelOutput(
        "log-odds", "the log-odds of a class", value, weight, from_record=from_record
    )


def record(model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """`logits` `[batch, classes]`."""
    return {RECORD: logits(model, batch)}


def summarize(
    records: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """`predicted` (the classes of more than ½), `correct` (all are right), `share_right` of the
    classes, and `output` (the mean margin)."""
    mean = np.asarray(records[RECORD], np.float64)
    there = np.asarray(arrays[LABEL][:]) > 0
    predicted = mean > 0
    right = predicted == there
    return {
        "predicted": np.array(
            [
                class_list([classes[one] for one in np.flatnonzero(row).tolist()])
                for row in predicted
            ],
            object,
        ),
        "correct": right.all(axis=1),
        "share_right": right.mean(axis=1).astype(np.float32),
        "output": np.where(there, mean, -mean).mean(axis=1).astype(np.float32),
    }


MEAN_MARGIN = ModelOutput("mean-margin", "the mean margin of all classes", mean_margin, mean_weight)
CHOICES = (
    OutputChoice(
        "mean-margin",
        "all classes",
        MEAN_MARGIN.title,
        f"What determines {MEAN_MARGIN.title}?",
        of="label",
    ),
    OutputChoice(
        CLASS,
        "a class",
        "the log-odds of “{}”",
        "What speaks for “{}”?",
        raises="Pulled the model toward “{}”",
        lowers="Pulled the model away from “{}”",
    ),
)
"""The mean margin depends on the labels, so an example from outside has log-odds of classes only.
"""
