"""What a study tells of itself, as plain values: what pages, the terminal and notebooks show."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from engine.store.layout import Split


def default_id(split: str, row: int) -> str:
    """The id of an example whose source gives it none."""
    return f"{split}-{row}"


@dataclass(frozen=True)
class Dataset:
    """What dataset.json says.

    Attributes:
        fingerprint: Of the encoded content, ids, labels, classes and encoding.
        display: How an example is shown.
        encoding: The task's description of how rows became tensors.
        cell: Side of a thumbnail's square cell on its sprite sheet, pixels; 0 without pictures.
    """

    fingerprint: str
    source: str
    task: str
    display: Literal["image", "text"]
    n_train: int
    n_test: int
    classes: list[str]
    encoding: dict[str, Any]
    cell: int
    warnings: list[str]

    def rows(self, split: Split) -> int:
        return self.n_train if split == "train" else self.n_test


@dataclass(frozen=True)
class Progress:
    """How far a stage of the build is."""

    stage: str
    algorithm: str | None
    done: int
    total: int

    @property
    def complete(self) -> bool:
        return self.done >= self.total


@dataclass(frozen=True)
class Badge:
    """How far the scores beside it can be trusted: shown wherever a score is.

    Attributes:
        method: Its name for people, such as `TRAK`.
        reason: Why these scores are computed this way, or where they come from; one sentence.
        index: Kind of the search index.
        recall: Of the search index against exact top-k, and the k it was measured at.
        solver: How TRAK was computed; None for scores that are none of ours.
        checkpoints: Models attributed; None where that is not known.
        wanted: How many more of them would do, where an upload has so few that it is indicative.
        features: Width of the gradient features (None: exact, not projected, or not known).
        damping: λ relative to the mean diagonal.
        runs: Subset runs that the scores were fitted on.
        lds: Linear datamodeling score; None until it is measured on held-out subset runs.
        lds_low, lds_high: Ends of its 95 % interval.
        slope: Change of the margin for a score of 1; None while scores are uncalibrated.
        slope_low, slope_high: Ends of its 95 % interval.
        r_squared: Share of the outputs' variance that the calibrated scores explain.
    """

    method: str
    reason: str
    index: str
    recall: float
    recall_at: int
    solver: str | None = None
    checkpoints: int | None = None
    wanted: int = 0
    features: int | None = None
    damping: float | None = None
    soft_threshold: float = 0.0
    runs: int | None = None
    lds: float | None = None
    lds_low: float | None = None
    lds_high: float | None = None
    slope: float | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    r_squared: float | None = None

    @property
    def calibrated(self) -> bool:
        """Whether a score is known as a change of the margin."""
        return self.slope is not None

    def __str__(self) -> str:
        parts = [self.method if self.solver is None else f"{self.method} ({self.solver})"]
        if self.checkpoints is not None:
            parts.append(f"{self.checkpoints} checkpoints")
        if self.runs is not None:
            parts.append(f"{self.runs:,} subset runs")
        if self.solver is not None:
            exact = self.features is None
            parts.append("exact gradients" if exact else f"{self.features:,} features")
            parts.append(f"λ {self.damping:g}")
        if self.lds is None:
            parts.append("LDS not measured")
        else:
            parts.append(f"LDS {self.lds:.3f} [{self.lds_low:.3f}, {self.lds_high:.3f}]")
        parts.append("calibrated" if self.calibrated else "uncalibrated")
        return " · ".join(parts)


@dataclass(frozen=True)
class Similarity:
    """What likeness to training examples is measured by.

    Attributes:
        checkpoints: How many models' embeddings it is the mean cosine of; 0 where none gives any.
        reason: Why there are none, or why the index is of its kind.
        stored: How many neighbours are stored for every example.
        index: Kind of FAISS index, and its recall against exact search.
    """

    checkpoints: int
    reason: str
    stored: int = 0
    index: str = ""
    recall: float = 1.0


@dataclass(frozen=True)
class Import:
    """Where the scores of an imported method came from.

    Attributes:
        tool: What made them; None where the user did not say.
        files: Name → SHA-256 of each file they were read from.
        shape: Of the matrix in the file.
        rows: What a row of it stood for, `test` or `train`.
        negated: Its signs were turned round.
        settings: What the tool said of how they were made.
        dataset: Fingerprint of the data they were imported for.
    """

    tool: str | None
    files: dict[str, str]
    shape: list[int]
    rows: str
    negated: bool
    settings: dict[str, Any]
    dataset: str


@dataclass(frozen=True)
class Live:
    """Whether examples from outside can be attributed.

    Attributes:
        checkpoints: How many their scores are the mean over; 0: they cannot be.
        reason: Why so many.
        kept_bytes: What is kept on disk for it.
        read_bytes: What a query reads of it and of the study's other files.
    """

    checkpoints: int
    reason: str
    kept_bytes: int
    read_bytes: int


@dataclass(frozen=True)
class Influence:
    """One training example's score for one prediction. Positive supports, negative opposes."""

    row: int
    id: str
    label: str
    score: float


@dataclass(frozen=True)
class TrainingDatamodel:
    """What models say of a training example, as a sparse linear function of who is trained on.

    Attributes:
        row: Of the example.
        itself: What training on it adds to its own margin: how far it is memorised.
        rows: Other training examples whose weight is not zero, ascending.
        weights: What training on each adds to the margin; float32.
        bias: The margin predicted of a model trained on nothing.
        correlation: Of predicted with actual margins, on the runs that chose λ.
    """

    row: int
    itself: float
    rows: np.ndarray
    weights: np.ndarray
    bias: float
    correlation: float

    def strongest(self, k: int, sign: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and weights of the k others that help (1) or hurt (−1) most, strongest first."""
        signed = sign * self.weights
        order = np.argsort(-signed, kind="stable")[:k]
        order = order[signed[order] > 0]
        return self.rows[order], self.weights[order]


@dataclass(frozen=True)
class Explanation:
    """One prediction and the training examples that support and oppose its true label's margin.

    What the model says (`predicted` to `margin`) is None where only scores were imported.
    """

    study: str
    algorithm: str
    method: str
    row: int
    id: str
    label: str
    predicted: str | None
    correct: bool | None
    confidence: float | None
    margin: float | None
    supporting: list[Influence]
    opposing: list[Influence]
    badge: Badge

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
