"""The quick report of an upload: how good it is, and where it and the study's model differ.

It is there in seconds, before anything long is begun. It runs in a worker, as does
`engine.exchange.uploads.trial`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.attribution.softmax import softmax
from engine.exchange.uploads.match import Architecture
from engine.exchange.uploads.trial import load, logits_of, write_no_file
from engine.store import layout
from engine.study.models import has_predictions, read_predictions
from engine.study.names import resolve_algorithm, resolve_upload
from engine.study.reader import StudyReader

MOST_DIFFERENCES = 1000


@dataclass(frozen=True)
class Request:
    """Of which upload to report, beside which algorithm of the study."""

    root: Path
    upload: str
    against: str


@dataclass(frozen=True)
class QuickReport:
    """What an upload says of the study's test examples.

    Attributes:
        checkpoints: How many its answers are the mean of.
        accuracy: Share of test examples that it predicts rightly.
        by_class: The same of each class that has test examples, by name.
        against: The algorithm of the study it is compared with.
        their_accuracy, their_by_class: The same of that one; None while it has no predictions.
        agreement: Share of test examples that both predict alike.
        differing: How many they predict differently.
        rows: Those test rows, the surest differences first; at most `MOST_DIFFERENCES`.
        predicted, their_predicted: The class each predicts of `rows`.
    """

    upload: str
    checkpoints: int
    accuracy: float
    by_class: dict[str, float]
    against: str
    their_accuracy: float | None
    their_by_class: dict[str, float] | None
    agreement: float | None
    differing: int
    rows: list[int]
    predicted: list[str]
    their_predicted: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def quick_report(request: Request) -> QuickReport:
    """Run an upload over the test examples and compare.

    Raises:
        UploadError: It is gone, or no longer loads.
    """
    write_no_file()
    study = StudyReader.open(request.root)
    upload = resolve_upload(study, request.upload)
    architecture = Architecture(upload.architecture, upload.architecture_options)
    probabilities = np.zeros((study.dataset.n_test, len(study.dataset.classes)))
    for file in upload.files:
        path = layout.uploaded_weights_file(study.root, file.sha256)
        model = load(study, path, file.name, architecture)
        logits = logits_of(study, model, slice(0, study.dataset.n_test))
        probabilities += softmax(logits) / len(upload.files)
    classes = np.array(study.dataset.classes, dtype=object)
    predicted = classes[probabilities.argmax(axis=1)]
    labels = study.table("test")["label"].to_numpy()
    found: dict[str, Any] = {
        "upload": upload.id,
        "checkpoints": len(upload.files),
        "accuracy": float((predicted == labels).mean()),
        "by_class": _by_class(predicted == labels, labels, study.dataset.classes),
        "against": request.against,
    }
    against = resolve_algorithm(study, request.against)
    if not has_predictions(study, against):
        found |= dict.fromkeys(("their_accuracy", "their_by_class", "agreement"))
        return QuickReport(**found, differing=0, rows=[], predicted=[], their_predicted=[])
    theirs = read_predictions(study, "test", against)
    their_predicted = theirs["predicted"].to_numpy()
    right = theirs["correct"].to_numpy()
    differ = np.flatnonzero(predicted != their_predicted)
    sureness = probabilities.max(axis=1) + theirs["confidence"].to_numpy()
    rows = differ[np.argsort(-sureness[differ], kind="stable")][:MOST_DIFFERENCES]
    return QuickReport(
        **found,
        their_accuracy=float(right.mean()),
        their_by_class=_by_class(right, labels, study.dataset.classes),
        agreement=float((predicted == their_predicted).mean()),
        differing=len(differ),
        rows=rows.tolist(),
        predicted=predicted[rows].tolist(),
        their_predicted=their_predicted[rows].tolist(),
    )


def _by_class(right: np.ndarray, labels: np.ndarray, classes: list[str]) -> dict[str, float]:
    return {name: float(right[labels == name].mean()) for name in classes if (labels == name).any()}
