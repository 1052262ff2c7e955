"""How wrong the labels of training examples look, from what models make of them: arrays only.

A model that did not see an example has no reason to repeat its label. Subset runs are such models
for the half of the examples outside their masks, so with a run bank the evidence is an example's
mean margin in the runs without it. The log-odds of its label among its nearest training examples
count a `QUARTER`, because those embeddings come from models that saw the label. Chosen on one seed
of `benchmarks.labels`, where self-influence and the margins of models that saw the example added
less.

Without runs there is weaker evidence: the margin of the checkpoints, which were trained on the
label, plus the log-odds among the nearest training examples.

How low is too low? The test examples say it: no model saw them, so their margins are what right
labels look like. `looks_wrong` is the share of test labels with a margin at least as low in models
that did not see them: a conformal p-value, uniform for training labels that are as right as the
test labels. Neighbors have no part in it: those of test examples were found by models that had not
seen them, so the two would not be alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 20
LEVEL = 0.02
"""Share of training labels that are flagged although they are as right as the test labels."""
QUARTER = 0.25
"""Weight of the neighbors beside models that did not see the example."""
ONE_SIDED_95 = 1.645


@dataclass(frozen=True)
class Unseen:
    """Margins in the subset runs without an example, and what seeing it adds.

    Attributes:
        margin: Mean over the runs without the example `[n_train]`; NaN where every run has it.
        runs: How many runs those are, int64 `[n_train]`.
        self_influence: Mean over the runs with it minus `margin`; NaN where either is missing.
        test: Means of as many runs for each test example `[n_test]`: what margins of unseen
            examples are like.
    """

    margin: np.ndarray
    runs: np.ndarray
    self_influence: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Excess:
    """How many labels are flagged, and how many would be by chance.

    Attributes:
        flagged: Number of flagged training examples.
        expected: Number by chance, if training labels are as right as the test labels.
        beyond_chance: Whether more are flagged than chance explains, at a level of 5 %.
    """

    flagged: int
    expected: float
    beyond_chance: bool


def unseen_margins(masks: np.ndarray, train: np.ndarray, test: np.ndarray) -> Unseen:
    """Margins of examples in the runs without them.

    A test example is in no mask, so all runs are without it. To be like a training example, it gets
    the runs without one training example: rows take turns.

    Args:
        masks: bool `[m, n_train]`.
        train, test: Margins of the runs, `[m, n_train]` and `[m, n_test]`.
    """
    n = masks.shape[1]
    inside, outside = np.zeros(n), np.zeros(n)
    for mask, margins in zip(masks, train, strict=True):
        inside[mask] += margins[mask]
        outside[~mask] += margins[~mask]
    seen = masks.sum(axis=0, dtype=np.int64)
    runs = len(masks) - seen
    with np.errstate(invalid="ignore", divide="ignore"):
        margin, with_it = outside / runs, inside / seen
    known = np.flatnonzero(runs > 0)
    columns = ~masks[:, known[np.arange(test.shape[1]) % len(known)]] if len(known) else None
    like = np.full(test.shape[1], np.nan)
    if columns is not None:
        like = np.where(columns, test, 0).sum(axis=0, dtype=np.float64) / columns.sum(axis=0)
    return Unseen(margin, runs, with_it - margin, like)


def neighbour_counts(labels: np.ndarray, near: np.ndarray, classes: int) -> np.ndarray:
    """How many of the nearest training examples have each class: float64 `[n, classes]`.

    Args:
        labels: Class numbers of the training examples.
        near: Their rows, `[n, k]`; −1 where there are fewer.
    """
    found = np.zeros((len(near), classes))
    for column in near.T:
        there = column >= 0
        found[np.flatnonzero(there), labels[column[there]]] += 1
    return found


def agreement(labels: np.ndarray, own: np.ndarray, near: np.ndarray) -> np.ndarray:
    """How many of the nearest training examples have an example's own label, and how many do not:
    int64 `[n, 2]`.

    Args:
        labels: Class numbers of the training examples.
        own: Those of the examples `[n]`.
        near: Their nearest rows, `[n, k]`; −1 where there are fewer.
    """
    there = near >= 0
    same = there & (labels[np.where(there, near, 0)] == own[:, None])
    alike = same.sum(axis=1)
    return np.stack([alike, there.sum(axis=1) - alike], axis=1)


def disagreement(agreement: np.ndarray) -> np.ndarray:
    """Share of the nearest training examples with another label; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = agreement[:, 1] / agreement.sum(axis=1)
    return found


def neighbour_log_odds(agreement: np.ndarray) -> np.ndarray:
    """Log-odds of each example's label among its nearest training examples."""
    found: np.ndarray = np.log(agreement[:, 0] + 0.5) - np.log(agreement[:, 1] + 0.5)
    return found


def suggest(labels: np.ndarray, log_p: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """The likeliest other class of each example, by the models' log-probabilities and, if there are
    any, its nearest training examples: class numbers `[n]`."""
    odds = log_p
    if counts is not None:
        shares = (counts + 0.5) / (counts.sum(axis=1, keepdims=True) + 0.5 * counts.shape[1])
        odds = log_p + np.log(shares)
    others = np.where(np.arange(log_p.shape[1]) == labels[:, None], -np.inf, odds)
    found: np.ndarray = others.argmax(axis=1)
    return found


def looks_wrong(margins: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Share of test labels that look at least as wrong, counting the example itself: `[n]` in
    (0, 1]; 1 where the margin is unknown.

    Args:
        margins: Of the training examples, in any log-odds; low is suspicious.
        test: The same of the test examples.
    """
    ordered = np.sort(test[np.isfinite(test)])
    below = np.searchsorted(ordered, margins, side="right")  # NaN is sorted last
    found: np.ndarray = (1 + below) / (len(ordered) + 1)
    return np.where(np.isfinite(margins), np.minimum(found, 1.0), 1.0)


def flag(p: np.ndarray, n_test: int) -> tuple[np.ndarray, float]:
    """(which labels are flagged, the share that is flagged by chance): `LEVEL`, or what so few test
    examples can tell."""
    level = max(LEVEL, 1 / (n_test + 1))
    steps = np.floor(level * (n_test + 1) + 1e-9)
    return p <= steps / (n_test + 1) + 1e-12, float(steps / (n_test + 1))


def excess(flagged: np.ndarray, level: float, n_test: int) -> Excess:
    """How the number of flagged labels compares with chance.

    Chance has two parts: which training margins lie below the test margins' quantile, and where
    that quantile lies.
    """
    n, count = len(flagged), int(flagged.sum())
    variance = n * level * (1 - level) * (1 + n / n_test)
    return Excess(
        count, n * level, bool(count > n * level + ONE_SIDED_95 * np.sqrt(variance) + 0.5)
    )
