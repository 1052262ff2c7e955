"""The quick report of an upload: how good it is, and where it and the study's model differ.

It takes seconds and needs no attribution. It runs in a worker, as `engine.exchange.uploads.trial`
does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.attribution.ensemble import checkpoint_mean
from engine.attribution.softmax import softmax
from engine.build.tasks import task_of
from engine.exchange.uploads.match import Architecture
from engine.exchange.uploads.plausible import doubtful_outputs, doubts, unlike_outputs
from engine.exchange.uploads.trial import load, outputs_of, write_no_file
from engine.store import layout
from engine.store.quantities import predicted_text
from engine.study.capabilities import has
from engine.study.examples import read_stacked_arrays
from engine.study.models import has_predictions, read_class_numbers, read_predictions
from engine.study.names import resolve_algorithm, resolve_upload
from engine.study.reader import StudyReader
from engine.study.uploads import UploadedFile
from engine.training.finite import count_text, not_finite

MOST_DIFFERENCES = 1000


@dataclass(frozen=True)
class Request:
    """A request to compare an upload with an algorithm of the study."""

    root: Path
    upload: str
    against: str


@dataclass(frozen=True)
class QuickReport:
    """An upload's predictions on the study's test examples, compared with an algorithm's.

    Attributes:
        upload: The upload's id.
        checkpoints: Number of checkpoints whose probabilities are averaged.
        warnings: Sentences to read before any figure below; [] if nothing looks wrong.
        refusal: Why the upload cannot be compared; empty if it can.
        not_finite: Number of test examples on which an output is NaN or infinite. They have no
            predicted class, and count as wrong and as no agreement.
        accuracy: Share of test examples that the upload predicts correctly; None without classes.
        by_group: Accuracy on each class that has test examples, by class name; {} without classes.
        against: The algorithm of the study to compare with.
        their_accuracy, their_by_group: The algorithm's accuracies; None if it has no predictions,
            and without classes.
        agreement: Share of test examples with the same predicted class; None likewise.
        differing: Number of test examples with different predictions.
        rows: Test rows with different predictions, highest summed confidence first, or, without
            classes, those whose model outputs differ most; at most `MOST_DIFFERENCES`.
        predicted, their_predicted: The predictions of `rows`, as texts.
        output, their_output: Mean model output on the test examples; None with classes, and if the
            algorithm has no predictions.
        correlation: Pearson correlation of the two's model outputs; None likewise, and where one
            gives the same output for all.
    """

    upload: str
    checkpoints: int
    warnings: list[str]
    refusal: str
    not_finite: int
    accuracy: float | None
    by_group: dict[str, float]
    against: str
    their_accuracy: float | None
    their_by_group: dict[str, float] | None
    agreement: float | None
    differing: int
    rows: list[int]
    predicted: list[str]
    their_predicted: list[str]
    output: float | None = None
    their_output: float | None = None
    correlation: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def quick_report(request: Request) -> QuickReport:
    """Run an upload on the test examples and compare its predictions.

    Raises:
        UploadError: The upload no longer exists or no longer loads.
    """
    write_no_file()
    study = StudyReader.open(request.root)
    upload = resolve_upload(study, request.upload)
    architecture = Architecture(upload.architecture, upload.architecture_options)
    warnings, bad = [*upload.copies], np.zeros(study.dataset.n_test, bool)

    def records_of(file: UploadedFile) -> dict[str, np.ndarray]:
        path = layout.uploaded_weights_file(study.root, file.sha256)
        model = load(study, path, file.name, architecture)
        outputs = outputs_of(study, model, slice(0, study.dataset.n_test))
        own = not_finite(outputs)
        if own.any():
            ids = study.table("test")["id"].tolist()
            warnings.append(
                f"{file.name} gives NaN or infinite outputs for {count_text(own, ids, 'test')}: "
                "its weights are too large there. These examples have no prediction and count as "
                "wrong below."
            )
        np.logical_or(bad, own, out=bad)
        return {name: part for name, part in outputs.items() if name not in ("embeddings",)}

    found = [records_of(file) for file in upload.files]
    with np.errstate(invalid="ignore"):  # infinite outputs, whose rows are set to 0 next
        records = {name: checkpoint_mean(one[name] for one in found) for name in found[0]}
    for part in records.values():
        part[bad] = 0
    about = QuickReport(
        upload=upload.id,
        checkpoints=len(upload.files),
        warnings=warnings,
        refusal=_refusal(bad),
        not_finite=int(bad.sum()),
        accuracy=None,
        by_group={},
        against=request.against,
        their_accuracy=None,
        their_by_group=None,
        agreement=None,
        differing=0,
        rows=[],
        predicted=[],
        their_predicted=[],
    )
    compared = _by_classes if has(study, "classes") else _by_outputs
    return compared(study, about, records, bad)


def _by_classes(
    study: StudyReader, about: QuickReport, records: dict[str, np.ndarray], bad: np.ndarray
) -> QuickReport:
    """The report with accuracies and predicted classes."""
    logits = records["logits"]
    probabilities = softmax(logits)
    classes = np.array(study.dataset.classes, dtype=object)
    predicted = classes[probabilities.argmax(axis=1)]
    predicted[bad] = ""
    labels = study.table("test")["label"].to_numpy()
    numbers = read_class_numbers(study, "test")
    about = replace(
        about,
        warnings=[
            *about.warnings,
            *doubts(logits[~bad], numbers[~bad], study.dataset.classes),
        ],
        accuracy=float((predicted == labels).mean()),
        by_group=_by_group(predicted == labels, labels, study.dataset.classes),
    )
    against = resolve_algorithm(study, about.against)
    if not has_predictions(study, against):
        return about
    theirs = read_predictions(study, "test", against)
    their_predicted = theirs["predicted"].to_numpy()
    correct = theirs["correct"].to_numpy()
    differ = np.flatnonzero((predicted != their_predicted) & ~bad)
    confidence = probabilities.max(axis=1) + theirs["confidence"].to_numpy()
    rows = differ[np.argsort(-confidence[differ], kind="stable")][:MOST_DIFFERENCES]
    return replace(
        about,
        their_accuracy=float(correct.mean()),
        their_by_group=_by_group(correct, labels, study.dataset.classes),
        agreement=float((predicted == their_predicted).mean()),
        differing=len(differ),
        rows=rows.tolist(),
        predicted=predicted[rows].tolist(),
        their_predicted=their_predicted[rows].tolist(),
    )


def _by_outputs(
    study: StudyReader, about: QuickReport, records: dict[str, np.ndarray], bad: np.ndarray
) -> QuickReport:
    """The report with model outputs, for tasks whose examples do not have one class each."""
    arrays = read_stacked_arrays(study, "test")
    summary = task_of(study).summarize(records, arrays, study.dataset.classes)
    outputs = np.asarray(summary.get("output", records["output"]), np.float64)
    about = replace(
        about,
        warnings=[*about.warnings, *doubtful_outputs(outputs[~bad])],
        output=float(outputs[~bad].mean()) if not bad.all() else None,
    )
    against = resolve_algorithm(study, about.against)
    if not has_predictions(study, against):
        return about
    theirs = read_predictions(study, "test", against)
    their_outputs = theirs["output"].to_numpy(np.float64)
    mine, other = (
        as_texts(one, study.dataset.predicted)
        for one in (summary["predicted"], theirs["predicted"].to_numpy())
    )
    if not bad.all():
        unlike = unlike_outputs(outputs[~bad], their_outputs[~bad])
        about = replace(about, warnings=[*about.warnings, *unlike])
    differ = np.flatnonzero((mine != other) & ~bad)
    apart = np.abs(outputs - their_outputs)[differ]
    rows = differ[np.argsort(-apart, kind="stable")][:MOST_DIFFERENCES]
    varies = (~bad).sum() > 1 and np.ptp(outputs[~bad]) > 0 and np.ptp(their_outputs[~bad]) > 0
    return replace(
        about,
        their_output=float(their_outputs.mean()),
        correlation=float(np.corrcoef(outputs[~bad], their_outputs[~bad])[0, 1])
        if varies
        else None,
        differing=len(differ),
        rows=rows.tolist(),
        predicted=mine[rows].tolist(),
        their_predicted=other[rows].tolist(),
    )


def as_texts(predicted: np.ndarray, kind: str) -> np.ndarray:
    """Predictions as people read them, objects of `str`.

    Args:
        kind: What they are, if they are numbers (`engine.store.records.Dataset.predicted`).
    """
    texts = [predicted_text(one, kind) for one in predicted]
    return np.array(texts, dtype=object)


def _refusal(bad: np.ndarray) -> str:
    if not bad.any():
        return ""
    return (
        f"It cannot be compared: {bad.sum():,} of {len(bad):,} test examples have NaN or infinite "
        "outputs, and attributions need finite ones. Find what made these weights so large, and "
        "upload the corrected model."
    )


def _by_group(correct: np.ndarray, labels: np.ndarray, classes: list[str]) -> dict[str, float]:
    return {
        name: float(correct[labels == name].mean()) for name in classes if (labels == name).any()
    }
