"""The results of a study as plain values, as pages, the command line and notebooks show them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from engine.store.layout import Split
from engine.store.quantities import LDS
from engine.store.text import counted

View = Literal["picture", "text"]
LabelKind = Literal["class", "classes", "number", "none"]


def default_id(split: str, row: int) -> str:
    """The id of an example whose source gives it none."""
    return f"{split}-{row}"


@dataclass(frozen=True)
class OutputChoice:
    """A model output that a person can choose to explain, or a family of them with classes.

    `{}` in the texts stands for the names of classes, in order.

    Attributes:
        name: What is written to choose it: `margin`, `class:{}`, `{}>{}`.
        label: Its name in a list of choices: `one class rather than another`.
        title: What the scores answer, as part of a sentence: `the margin of “{}”`.
        question: The same as a question, the title of a page: `Why “{}”?`
        contrary: The question where a class other than this one is predicted; empty: the same.
        raises, lowers: What supporting and opposing training examples did to it, as the beginning
            of a sentence; empty: they raised, or lowered, `title`.
        of: What stands in the first slot of `question`, `raises` and `lowers`: the example's
            `label`, its `predicted` class, or the `target`, the text that is expected; the classes
            in `name` stand behind it. None: these alone.
        becomes: With `of`: the name of the family that it is a member of, with this class; empty:
            it is a model output of its own.
        takes: What fills a slot: a class; numbers of target tokens, from 1 (`1,3`); a text; the
            first and the last of a range, from 1 (`1-100`).
        part: What it is of the default output, in a word or two, where that is the sum of such
            parts; empty: none.
    """

    name: str
    label: str
    title: str
    question: str
    contrary: str = ""
    raises: str = ""
    lowers: str = ""
    of: Literal["label", "predicted", "target"] | None = None
    becomes: str = ""
    takes: Literal["class", "tokens", "text", "range"] = "class"
    part: str = ""

    @property
    def slots(self) -> int:
        """How many classes a person chooses."""
        return self.name.count("{}")


@dataclass(frozen=True)
class ExampleOutput:
    """A model output of one example that can be explained.

    Attributes:
        name: What to pass as `output`, such as `class:Coat`.
        title: What the scores answer, as part of a sentence: `the margin of “Coat”`.
        question: The same as a question: `Why not “Coat”?`
        stored: Whether its scores are stored; those of others are computed live.
    """

    name: str
    title: str
    question: str
    stored: bool


@dataclass(frozen=True)
class Dataset:
    """The content of dataset.json.

    Attributes:
        fingerprint: Of the encoded content, ids, labels, classes and encoding.
        views: What shows an example: its picture, its text, or both.
        labels: Kind of its labels. `class` and `classes` are names in `classes`.
        outcomes: Which outcomes predictions have (`engine.tasks.outcomes`); None if they cannot be
            right or wrong, and so neither flip nor be brittle.
        output: Name of the attributed model output, such as `margin`.
        output_title: What the scores answer: `the margin of the true label`.
        choices: Model outputs that can be chosen, `OutputChoice` as dicts; the first is `output`.
            Read them by `engine.study.output_names.output_choices`.
        predicted: What the column `predicted` of predictions is, where it holds numbers: a name in
            `engine.store.quantities.PREDICTIONS`.
        width: How many numbers a model gives for each example.
        encoding: The task's description of how rows became tensors.
        cell: Side of a thumbnail's square cell on its sprite sheet, pixels; 0 without pictures.
        warnings: What may make results wrong, one sentence each.
        notes: What was measured or chosen when the data were read, one sentence each.
    """

    fingerprint: str
    source: str
    task: str
    views: list[View]
    labels: LabelKind
    outcomes: str | None
    output: str
    output_title: str
    width: int
    n_train: int
    n_test: int
    classes: list[str]
    encoding: dict[str, Any]
    cell: int
    warnings: list[str]
    notes: list[str] = field(default_factory=list)
    choices: list[dict[str, Any]] = field(default_factory=list)
    predicted: str = "prediction"

    def rows(self, split: Split) -> int:
        return self.n_train if split == "train" else self.n_test


@dataclass(frozen=True)
class Progress:
    """Progress of one stage of the build.

    Attributes:
        note: A sentence for the user about what the stage does; empty in most reports.
    """

    stage: str
    algorithm: str | None
    done: int
    total: int
    note: str = ""

    @property
    def complete(self) -> bool:
        return self.done >= self.total


@dataclass(frozen=True)
class Badge:
    """How scores were computed and how good they are; shown next to every score.

    Attributes:
        method: Its name for people, such as `TRAK`.
        reason: Why the scores were computed this way, or where they come from; one sentence.
        index: Kind of the search index.
        recall: Of the search index against exact top-k, measured at k = `recall_at`.
        solver: How TRAK was computed; None for other scores.
        checkpoints: Number of models attributed; None if unknown.
        wanted: How many more would be enough, if an upload has so few that it is indicative.
        features: Width of the gradient features (None: exact, not projected, or not known).
        damping: λ relative to the mean diagonal.
        runs: Number of subset runs that the scores were fitted on.
        lds: Linear datamodeling score; None until it is measured on held-out subset runs.
        lds_low, lds_high: Ends of its 95 % interval.
        ceiling: Noise ceiling, the LDS of perfect predictions; None where it is unknown.
        ceiling_low, ceiling_high: Ends of its 95 % interval.
        ceiling_text: The words for it, or why it is unknown; empty without an LDS.
        lds_of: Name of the output that the LDS was measured for, if that is not the one that the
            scores are about.
        slope: Change of the output for a score of 1 when a strong supporter is removed from all the
            data; None while scores are uncalibrated.
        slope_low, slope_high: Ends of its 95 % interval.
        r_squared: Share of the outputs' variance that the calibrated scores explain.
        output: Name of the model output that the scores are about.
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
    ceiling: float | None = None
    ceiling_low: float | None = None
    ceiling_high: float | None = None
    ceiling_text: str = ""
    lds_of: str = ""
    slope: float | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    r_squared: float | None = None
    output: str = "output"

    @property
    def calibrated(self) -> bool:
        """Whether scores can be read as changes of the model output."""
        return self.slope is not None

    def __str__(self) -> str:
        parts = [self.method if self.solver is None else f"{self.method} ({self.solver})"]
        if self.checkpoints is not None:
            parts.append(counted(self.checkpoints, "checkpoint"))
        if self.runs is not None:
            parts.append(counted(self.runs, "subset run"))
        if self.solver is not None:
            exact = self.features is None
            parts.append("exact gradients" if exact else f"{self.features:,} features")
            parts.append(f"λ {self.damping:g}")
        if self.lds is None or self.lds_low is None or self.lds_high is None:
            parts.append("LDS not measured")
        else:
            of = f" of the {self.lds_of}" if self.lds_of else ""
            parts.append(f"LDS{of} {LDS.within(self.lds, self.lds_low, self.lds_high)}")
        if self.ceiling is not None and self.ceiling_low is not None and self.ceiling_low > 0:
            parts.append(f"noise ceiling {LDS.text(self.ceiling)}")
        parts.append("calibrated" if self.calibrated else "uncalibrated")
        return " · ".join(parts)


@dataclass(frozen=True)
class Similarity:
    """How similarity to training examples is measured.

    Attributes:
        checkpoints: Number of models whose embeddings' cosines are averaged; 0 if none has any.
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
        tool: What made them; None if the user did not say.
        files: Name → SHA-256 of each file they were read from.
        shape: Of the matrix in the file.
        rows: What its rows are, `test` or `train` examples.
        negated: Whether its signs were flipped.
        settings: The tool's own settings.
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
    """Whether new examples can be attributed.

    Attributes:
        checkpoints: Number of checkpoints that scores are averaged over; 0: they cannot be.
        reason: Why so many.
        kept_bytes: Size on disk of what is kept for this.
        read_bytes: Size of what a query reads, other files of the study included.
    """

    checkpoints: int
    reason: str
    kept_bytes: int
    read_bytes: int


@dataclass(frozen=True)
class Influence:
    """One training example's score for one prediction. Positive supports, negative opposes.

    Attributes:
        score: Of the method, without a unit.
        file: The file of a picture, below the source; None if it has none.
        text: The text of a text example; None for a picture.
        influence: What the example adds to the model output, in its unit; None while the scores are
            uncalibrated.
    """

    row: int
    id: str
    label: str
    score: float
    file: str | None = None
    text: str | None = None
    influence: float | None = None


@dataclass(frozen=True)
class TrainingDatamodel:
    """A training example's own margin as a sparse linear function of the training set.

    Attributes:
        row: Of the example.
        itself: What training on it adds to its own margin: how much it is memorized.
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
    """One prediction and the training examples that support and oppose its model output.

    The prediction (`predicted` to `output`) is None if only scores were imported, and `correct` and
    `confidence` are None for tasks without right and wrong. `output_name` and `output_title` say
    what `output` and the scores are about: `margin`, `the margin of the true label`; `question` is
    what the scores answer: `Why “Coat”?` `file` and
    `text` are those of the test example, as in `Influence`.
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
    output: float | None
    output_name: str
    output_title: str
    supporting: list[Influence]
    opposing: list[Influence]
    badge: Badge
    file: str | None = None
    text: str | None = None
    question: str = ""

    @property
    def influence_unit(self) -> str | None:
        """Unit of the influences; None while the scores are uncalibrated. Scores have no unit."""
        return self.output_name if self.badge.calibrated else None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "influence_unit": self.influence_unit}
