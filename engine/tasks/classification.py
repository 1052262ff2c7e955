"""What all classification tasks share: one class an example, cross entropy, margins, outcomes.

The default output is the margin of the true label (`engine.tasks.margin`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from engine.attribution.softmax import margins, softmax
from engine.models.answers import logits_of
from engine.models.calling import call
from engine.store.records import OutputChoice
from engine.tasks import ModelOutput
from engine.tasks.margin import margin, margin_to_loss
from engine.tasks.outcomes import CLASSES

if TYPE_CHECKING:
    from engine.attribution.trak.plan import Batch


def logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Logits `[batch, classes]` of a prepared batch."""
    return logits_of(call(model, batch))


def loss(model: torch.nn.Module, batch: Batch, label_smoothing: float) -> torch.Tensor:
    """Cross entropies `[batch]` of a prepared batch."""
    return functional.cross_entropy(
        logits(model, batch), batch["label"], reduction="none", label_smoothing=label_smoothing
    )


def record(model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """`logits` `[batch, classes]`."""
    return {CLASSES.record: logits(model, batch)}


def summarize(
    records: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """`predicted` (class name), `correct`, `confidence` and `output` (the margin).

    All follow from the mean logits (`engine.attribution.ensemble`), so they cannot contradict each
    other.
    """
    mean, labels = records[CLASSES.record], np.asarray(arrays["label"][:])
    predicted = CLASSES.answers(mean)
    return {
        "predicted": np.array(classes, dtype=object)[predicted],
        "correct": predicted == labels,
        "confidence": softmax(mean).max(axis=1).astype(np.float32),
        "output": margins(mean, labels).astype(np.float32),
    }


def label_array(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Class numbers of rows, int64 `[rows]`."""
    return np.array([row["label"] for row in rows], np.int64)


def margin_of_label(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Margins `[batch]` of the labels in the batch."""
    return margin(logits(model, batch), batch["label"])


def weight_of_label(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Q = |d cross entropy / d margin| = 1 − p_y `[batch]`."""
    return margin_to_loss(margin_of_label(model, batch))


MARGIN = ModelOutput("margin", "the margin of the true label", margin_of_label, weight_of_label)
OUTPUTS = (MARGIN,)

# --- outputs that a person chooses --------------------------------------------------------------

CLASS, RATHER = "class:{}", "{}>{}"
CHOICES = (
    OutputChoice(
        "margin",
        "the true label",
        MARGIN.title,
        "Why “{}”?",
        contrary="Why not “{}”?",
        of="label",
        becomes=CLASS,
    ),
    OutputChoice(
        "predicted",
        "the predicted class",
        "the margin of the predicted class",
        "Why “{}”?",
        of="predicted",
        becomes=CLASS,
    ),
    OutputChoice(
        CLASS,
        "a class",
        "the margin of “{}”",
        "Why “{}”?",
        contrary="Why not “{}”?",
        raises="Pulled the model toward “{}”",
        lowers="Pulled the model away from “{}”",
    ),
    OutputChoice(
        RATHER,
        "one class rather than another",
        "the logit of “{}” minus that of “{}”",
        "Why “{}” rather than “{}”?",
        raises="Pulled the model toward “{}” rather than “{}”",
        lowers="Pulled the model away from “{}”, toward “{}”",
    ),
)


def make_output(name: str, numbers: tuple[int, ...]) -> ModelOutput:
    """The margin of a class (`class:{}`), or the difference of two logits (`{}>{}`)."""
    return _margin_of(*numbers) if name == CLASS else _difference(*numbers)


def _margin_of(number: int) -> ModelOutput:
    """The margin of one class for every example, whatever its label. Q as if it were the label."""

    def value(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return margin_of_label(model, _labeled(batch, number))

    def weight(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return weight_of_label(model, _labeled(batch, number))

    def from_record(records: Mapping[str, np.ndarray]) -> np.ndarray:
        mean = records[CLASSES.record]
        return margins(mean, np.full(len(mean), number))

    return ModelOutput("margin", "the margin of a class", value, weight, from_record=from_record)


def _labeled(batch: Batch, number: int) -> Batch:
    return {**batch, "label": torch.full_like(batch["label"], number)}


def _difference(a: int, b: int) -> ModelOutput:
    """f = z_a − z_b: positive where the model prefers class a to class b.

    The loss depends on all logits. Q is its derivative where z_a rises and z_b falls by half of the
    change each: ½ (p_b − p_a + [y = a] − [y = b]), positive for an example of class a and negative
    for one of class b.
    """

    def value(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        found = logits(model, batch)
        return found[..., a] - found[..., b]

    def weight(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        p, label = logits(model, batch).softmax(-1), batch["label"]
        pull = (label == a).to(p.dtype) - (label == b).to(p.dtype)
        return (p[..., b] - p[..., a] + pull) / 2

    def from_record(records: Mapping[str, np.ndarray]) -> np.ndarray:
        mean = records[CLASSES.record].astype(np.float64)
        difference: np.ndarray = mean[:, a] - mean[:, b]
        return difference

    return ModelOutput(
        "difference", "a difference of two logits", value, weight, from_record=from_record
    )
