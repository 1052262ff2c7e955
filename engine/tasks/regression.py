"""What all regression tasks share: one number an example, squared error, the prediction as output.

Models are trained on standardized labels, (label − mean) / std of the training labels, so that one
learning rate suits labels of any unit. Outputs, predictions and errors are in the labels' unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field

from engine.models.answers import described, logits_of
from engine.models.calling import LABEL, call
from engine.store.errors import DataError, SpecError
from engine.tasks import Encoded, ModelOutput, Remarks, Task

if TYPE_CHECKING:
    from datasets import Dataset

    from engine.attribution.trak.plan import Batch

RECORD = "prediction"
_FAR_FROM_ZERO = 1e4
"""From this ratio of the labels' mean to their deviation on, float32 has too few digits."""


_FAR_OFF = 3.0
"""Root mean squared error of standardized labels; a constant has about 1."""


class LabelScale(BaseModel):
    """Keys of `[task]` that say how labels are standardized for training."""

    label_mean: float | Literal["auto"] = "auto"
    """Subtracted from labels; `auto` is the mean of the training labels. For your own trained
    models write what they were trained with: 0 if on labels as they are."""
    label_std: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Divides the result; `auto` is their standard deviation, 1 leaves labels as they are."""


def regression_task(inputs: Task, name: str, options: type[BaseModel]) -> Task:
    """The regression task on the inputs of a classification task.

    Args:
        inputs: Gives how rows become inputs, and how those are shown, prepared and augmented.
        name: As in study.toml.
        options: Those of `inputs` and `LabelScale`.
    """
    return Task(
        name=name,
        views=inputs.views,
        labels="number",
        outcomes=None,
        options=options,
        plan_encoding=_planning(inputs),
        encode=_encoding(inputs),
        accept=inputs.accept,
        remarks=_remarking(inputs),
        prepare=_preparing(inputs),
        lengths=inputs.lengths,
        fit=inputs.fit,
        augment=inputs.augment,
        loss=loss,
        width=lambda classes: 1,
        record=record,
        summarize=summarize,
        outputs=(PREDICTION,),
        doubts=doubts,
    )


# --- labels ---------------------------------------------------------------------------------------


def _planning(inputs: Task) -> Callable[[Dataset, Any, Sequence[str]], dict[str, Any]]:
    def plan_encoding(rows: Dataset, options: Any, classes: Sequence[str]) -> dict[str, Any]:
        """The encoding of the inputs, and `label_mean` and `label_std`."""
        labels = np.array(rows.select_columns(["label"])[:]["label"], np.float64)
        return {**inputs.plan_encoding(rows, options, classes), **label_scale(labels, options)}

    return plan_encoding


def label_scale(labels: np.ndarray, options: LabelScale) -> dict[str, float]:
    """`label_mean` and `label_std` of the training labels, or as the options say.

    Raises:
        DataError: All training labels are equal, or so close that float64 cannot tell them apart.
    """
    center = float(labels.mean())
    deviation = float((labels - center).std())
    if not 0 < deviation < np.inf:
        raise DataError(
            f"Every training example has the label {labels[0]:g}, or nearly so; there is nothing "
            "to learn."
        )
    return {
        "label_mean": center if options.label_mean == "auto" else options.label_mean,
        "label_std": deviation if options.label_std == "auto" else options.label_std,
    }


def _encoding(
    inputs: Task,
) -> Callable[[Sequence[dict[str, Any]], Any, dict[str, Any]], Encoded]:
    def encode(rows: Sequence[dict[str, Any]], options: Any, encoding: dict[str, Any]) -> Encoded:
        """The inputs' arrays, and float64 `label` [rows] in the labels' unit."""
        found = inputs.encode([{**row, "label": 0} for row in rows], options, encoding)
        labels = np.array([row["label"] for row in rows], np.float64)
        return Encoded({**found.arrays, LABEL: labels}, found.columns, found.thumbnails)

    return encode


def _remarking(
    inputs: Task,
) -> Callable[[Any, dict[str, Any], Mapping[str, Sequence[Mapping[str, np.ndarray]]]], Remarks]:
    def remarks(
        rows: Any,
        encoding: dict[str, Any],
        arrays: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    ) -> Remarks:
        """What there is to say about the inputs, and how labels are standardized."""
        found = inputs.remarks(rows, encoding, arrays)
        mean, std = encoding["label_mean"], encoding["label_std"]
        notes = [f"Models are trained on (label − {mean:.6g}) / {std:.6g}."]
        warnings = []
        labels = np.concatenate([shard[LABEL] for shard in arrays["train"]])
        if abs(labels.mean()) > _FAR_FROM_ZERO * labels.std():
            warnings.append(
                f"Labels lie {labels.std():.3g} around {labels.mean():.6g}, and predictions in "
                "float32 have few digits left for the differences. Subtract a constant from all "
                "labels."
            )
        return Remarks([*found.notes, *notes], [*found.warnings, *warnings])

    return remarks


def _preparing(inputs: Task) -> Callable[[Batch, dict[str, Any]], Batch]:
    def prepare(batch: Batch, encoding: dict[str, Any]) -> Batch:
        """The prepared inputs, and `label` `[b, 3]`: standardized label, mean, std."""
        raw = batch[LABEL].double()
        mean, std = encoding["label_mean"], encoding["label_std"]
        columns = [(raw - mean) / std, torch.full_like(raw, mean), torch.full_like(raw, std)]
        return {**inputs.prepare(batch, encoding), LABEL: torch.stack(columns, 1).float()}

    return prepare


# --- models ---------------------------------------------------------------------------------------


def standardized(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The model's answers `[batch]`: predictions of standardized labels.

    Raises:
        SpecError: The model does not give one number for each example.
    """
    found = logits_of(call(model, batch))
    if found.ndim == 2 and found.shape[1] == 1:
        found = found.squeeze(1)
    if found.ndim != 1:
        raise SpecError(
            f"the model gives {described(found)}; a model of regression gives one number for each "
            "example: [batch, 1] or [batch]."
        )
    return found


def loss(model: torch.nn.Module, batch: Batch, label_smoothing: float) -> torch.Tensor:
    """Squared errors `[batch]` of the standardized labels."""
    if label_smoothing:
        raise SpecError(
            f"label_smoothing = {label_smoothing:g}: labels of regression are numbers, which "
            "cannot be smoothed. Remove the key."
        )
    return (standardized(model, batch) - batch[LABEL][:, 0]) ** 2


def prediction(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Predictions `[batch]` in the labels' unit."""
    _, mean, std = batch[LABEL].unbind(1)
    return standardized(model, batch) * std + mean


def weight(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Q = −dloss/dprediction = 2 (label − prediction) / std² `[batch]`, with its sign.

    An example whose label is above its prediction pulls predictions up, and supports them.
    """
    target, _, std = batch[LABEL].unbind(1)
    return 2 * (target - standardized(model, batch)) / std


def doubts(model: torch.nn.Module, batch: Batch) -> list[str]:
    """A sentence if a trained model predicts on another scale than that of its training labels."""
    with torch.no_grad():
        error = float(loss(model, batch, 0.0).mean().sqrt())
    if error < _FAR_OFF:
        return []
    return [
        f"On the first training examples its predictions are {error:.3g} standard deviations of "
        "the labels off, so it was probably trained on labels that were scaled in another way. Set "
        "label_mean and label_std under [task] to what it was trained with (0 and 1: labels as "
        "they are)."
    ]


def record(model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """`prediction` `[batch]`."""
    return {RECORD: prediction(model, batch)}


def summarize(
    records: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """`predicted`, `error` (predicted − label) and `output`, which is the prediction."""
    predicted = np.asarray(records[RECORD], np.float64)
    return {
        "predicted": predicted,
        "error": predicted - np.asarray(arrays[LABEL][:], np.float64),
        "output": predicted.astype(np.float32),
    }


PREDICTION = ModelOutput("prediction", "the prediction", prediction, weight, curvature="constant")
