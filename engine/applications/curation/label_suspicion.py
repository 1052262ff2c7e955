"""Label suspicion of every training example: one definition for pages, Python and files.

found = label_suspicion(study)
found.order[:10]          # the rows whose labels look most wrong
found.evidence.words      # what it is based on, and how far that can be trusted
found.suggested(found.order[:10])     # what they look like instead

No table of examples × classes is made, which for ImageNet would take ten gigabytes: the margin is
stored with the predictions, and other classes are suggested for the rows that are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine import store
from engine.applications.curation.suspicion import (
    NEIGHBOURS,
    QUARTER,
    Excess,
    Unseen,
    agreement,
    disagreement,
    excess,
    flag,
    looks_wrong,
    neighbour_counts,
    neighbour_log_odds,
    suggest,
    unseen_margins,
)
from engine.store import layout
from engine.store.layout import ROWS_PER_SHARD
from engine.store.rows import ranges
from engine.study.capabilities import require
from engine.study.examples import shard_count
from engine.study.models import (
    MARGIN,
    has_predictions,
    read_class_numbers,
    read_margins,
    read_mean_logits,
)
from engine.study.names import resolve_algorithm
from engine.study.neighbours import has_similar, read_neighbours
from engine.study.reader import StudyReader
from engine.study.run_banks import has_bank, read_bank, read_bank_import

BLOCK = 1024
"""Examples whose other classes are compared together."""
FEWEST_RUNS = 4
"""Subset runs below which a mean over those without an example says too little."""


@dataclass(frozen=True)
class Evidence:
    """What suspicion is based on.

    Attributes:
        kind: `unseen`: subset runs without the example. `seen`: checkpoints that were trained on
            it, and its nearest training examples.
        runs: Number of subset runs without an example, on average; 0 without them.
        words: One or two sentences for people: what it is, and how reliable.
    """

    kind: Literal["unseen", "seen"]
    runs: float
    words: str


@dataclass(frozen=True)
class LabelSuspicion:
    """How wrong each training label looks; arrays have one entry a training row.

    Attributes:
        study: Where the labels are, and what else they may be.
        suspicion: Share of the test labels that look less wrong, 0 to 1.
        margin: Margin of the label, in the runs without the example or else by the checkpoints; NaN
            if unknown.
        log_odds: Of the label, by the margin and the neighbors. They rank: low is suspicious.
        flagged: Which labels look more wrong than all but `level` of the test labels.
        disagreement: Share of the nearest training examples with another label; None without
            embeddings.
        self_influence: What training on the example adds to its own margin; None without subset
            runs.
        order: Rows, most suspicious first.
        level: Share of labels that is flagged where training labels are as right as test labels.
        excess: The number of flagged labels beside that by chance.
    """

    study: StudyReader
    algorithm: str
    evidence: Evidence
    suspicion: np.ndarray
    margin: np.ndarray
    log_odds: np.ndarray
    flagged: np.ndarray
    disagreement: np.ndarray | None
    self_influence: np.ndarray | None
    order: np.ndarray
    level: float
    excess: Excess

    @property
    def words(self) -> str:
        """What was found, one or two sentences."""
        n, found = len(self.flagged), self.excess
        look = "looks" if found.flagged == 1 else "look"
        first = (
            f"{found.flagged:,} of {n:,} labels {look} more wrong than {1 - self.level:.0%} of the "
            "test labels do"
        )
        if found.beyond_chance:
            more = max(1, round(found.flagged - found.expected))
            return f"{first}, about {more:,} more than chance explains."
        return f"{first}: no more than chance explains ({round(found.expected):,})."

    def suggested(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """What training rows look like instead of their label: the likeliest other class."""
        classes = self.study.dataset.classes
        numbers = _suggested_classes(self.study, self.algorithm, np.asarray(rows, np.int64))
        return [classes[number] for number in numbers.tolist()]


def has_suspicion(study: StudyReader, algorithm: str) -> bool:
    """Whether label suspicion can be computed: examples have one class, and there are models."""
    return study.has_data and study.dataset.labels == "class" and has_predictions(study, algorithm)


def label_suspicion(study: StudyReader, algorithm: str | None = None) -> LabelSuspicion:
    """How wrong every training label looks to the models of an algorithm.

    Raises:
        MissingCapability: Examples do not have one class each. StoreError: There are no
            predictions yet.
    """
    require(study, "classes", "Label suspicion")
    algorithm = resolve_algorithm(study, algorithm)
    near = _agreement(study, algorithm) if has_similar(study, algorithm) else None
    unseen = read_unseen(study, algorithm)
    around = 0.0 if near is None else neighbour_log_odds(near)
    if unseen is not None:
        margin, like, runs = unseen.margin, unseen.test, float(unseen.runs.mean())
        log_odds = margin + QUARTER * around
    else:
        margin, like = (read_margins(study, split, algorithm) for split in layout.SPLITS)
        log_odds, runs = margin + around, 0.0
    p = looks_wrong(margin, like)
    flagged, level = flag(p, len(like))
    return LabelSuspicion(
        study=study,
        algorithm=algorithm,
        evidence=_evidence(runs, near is not None),
        suspicion=1 - p,
        margin=margin,
        log_odds=log_odds,
        flagged=flagged,
        disagreement=None if near is None else disagreement(near),
        self_influence=None if unseen is None else unseen.self_influence,
        order=np.argsort(log_odds, kind="stable"),
        level=level,
        excess=excess(flagged, level, len(like)),
    )


def read_unseen(study: StudyReader, algorithm: str) -> Unseen | None:
    """The margins of examples in the subset runs without them; None without a bank that tells."""
    if study.dataset.output != MARGIN or not has_bank(study, algorithm):
        return None
    about = read_bank_import(study, algorithm)
    if about is not None and not (about.train and about.dataset == study.dataset.fingerprint):
        return None
    bank = read_bank(study, algorithm)
    if bank.train is None or len(bank) < FEWEST_RUNS or bank.output != MARGIN:
        return None
    return unseen_margins(bank.masks, bank.train, bank.test)


def _suggested_classes(study: StudyReader, algorithm: str, rows: np.ndarray) -> np.ndarray:
    """The likeliest other class of some training rows: its number, int64 `[len(rows)]`."""
    found = np.empty(len(rows), np.int64)
    labels, classes = read_class_numbers(study, "train"), len(study.dataset.classes)
    for block in ranges(range(len(rows)), BLOCK):
        some = rows[block.start : block.stop]
        logits = read_mean_logits(study, "train", algorithm, some)
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        counts = None
        if has_similar(study, algorithm):
            near = read_neighbours(study, "train", some, algorithm)[:, :NEIGHBOURS]
            counts = neighbour_counts(labels, near, classes)
        found[block.start : block.stop] = suggest(labels[some], log_p, counts)
    return found


def _agreement(study: StudyReader, algorithm: str) -> np.ndarray:
    """Which of their nearest training examples agree with the training labels, `[n_train, 2]`."""
    labels = read_class_numbers(study, "train")
    found = np.empty((len(labels), 2), np.int64)
    for shard in range(shard_count(study, "train")):
        rows = slice(shard * ROWS_PER_SHARD, (shard + 1) * ROWS_PER_SHARD)
        path = layout.neighbours_file(study.root, algorithm, "train", shard)
        near = store.read_tensors(path)["index"][:, :NEIGHBOURS]
        found[rows] = agreement(labels, labels[rows], near)
    return found


def _evidence(runs: float, neighbours: bool) -> Evidence:
    if runs:
        words = (
            f"Based on the margin of the label in subset runs without the example, "
            f"{runs:.0f} on average: models that had no reason to repeat the label."
        )
        return Evidence("unseen", runs, words)
    near = f" and its {NEIGHBOURS} nearest training examples" if neighbours else ""
    words = (
        f"Weak evidence: based on checkpoints that were trained on the label{near}, so memorized "
        "wrong labels look right. Subset runs tell better: set `masks` under [subset_runs] in "
        "study.toml."
    )
    return Evidence("seen", 0.0, words)
