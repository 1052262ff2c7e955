"""Find predictions that depend on a few training examples, and those examples.

A prediction's *support* is the smallest number of training examples whose removal flips it: changes
the predicted class. It is estimated from calibrated scores: the
strongest examples are removed one after the other (supporters of a correct prediction, opposers of
a wrong one) until the predicted *logit gap* changes sign. Only retraining proves it
(engine.applications.verification); a support proven this way is an upper bound on the true one.

The logit gap is the logit of the true label minus the largest other, in the mean logits of the
checkpoints. Unlike the margin, it changes sign exactly where the predicted class changes. Scores
are about the margin; removal is assumed to change the logit gap as much as the margin.

Tasks with other outcomes have other gaps (`engine.applications.brittle.gaps`).

The *probability of a flip* is the probability that models retrained without the removed examples
together predict another class: that the logit gap in their mean logits is beyond 0. The predicted
gap has two errors. That of the predicted change (engine.attribution.evaluation.effects) is normal,
with a known variance. That of a mean over few checkpoints has a variance that those few checkpoints
estimate, so it has the longer tails of Student's t. A flip is predicted from the first number of
removals at which the probability reaches `PROBABILITY`, and files hold the same number.

If models trained on all data disagree about a prediction, it depends on chance, not on examples:
with fewer than `REQUIRED_AGREEMENT` of the checkpoints in agreement there is no estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine import store
from engine.applications.brittle.gaps import logit_gaps, outcomes_of
from engine.applications.verification.record import Verification
from engine.applications.verification.verifying import Request, request_of, verify_all
from engine.attribution.evaluation.effects import Units, removals
from engine.attribution.evaluation.quality import TWO_SIDED_95
from engine.attribution.scores.top_k import top_k_among
from engine.running.progress import Report
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.store.rows import ranges
from engine.store.text import counted
from engine.study.capabilities import require
from engine.study.counterfactuals import read_units
from engine.study.groups import read_group_numbers
from engine.study.models import read_predictions
from engine.study.names import resolve_algorithm, resolve_method
from engine.study.rankings import read_top
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_score_matrix
from engine.tasks.outcomes import CLASSES

AT_MOST = 20
MOST = 1000
PROBABILITY = 0.8
"""The least probability at which a flip is predicted, by default: four of five should flip.
benchmarks/brittle.py measures how many do."""
REQUIRED_AGREEMENT = 1.0
"""At 0.8, 5 of 19 predictions of the demo also flipped when random examples were removed."""
_BLOCK_BYTES = 2**27
_SMALL = 1e-12
_NORMAL = 1e6
"""Degrees of freedom from which Student's t is normal for every purpose."""


@dataclass(frozen=True)
class Supports:
    """Support estimates of every test example, and their removal sets.

    Attributes:
        algorithm, method: Learning algorithm and attribution method of the scores.
        at_most: The largest size of a removal set, K.
        probability: The least probability at which a flip is predicted.
        right: Whether the checkpoints together predict the true label, bool `[n]`.
        logit_gap: Of the mean logits, float64 `[n]`.
        logit_gap_deviation: Standard deviation over the checkpoints, float64 `[n]`.
        agreement: Share of the checkpoints that predict as their mean does, float64 `[n]`.
        checkpoints: Number of checkpoints.
        index: Training rows in the order of removal, int32 `[n, K]`; −1 after the last one.
        score: Their scores, float32 `[n, K]`.
        units: None if the scores are not calibrated: examples are ranked, and no flip is predicted.
        scores: Fingerprint of the scores.
        gap: What a logit gap is called in this task.
    """

    algorithm: str
    method: str
    at_most: int
    probability: float
    right: np.ndarray
    logit_gap: np.ndarray
    logit_gap_deviation: np.ndarray
    agreement: np.ndarray
    checkpoints: int
    index: np.ndarray
    score: np.ndarray
    units: Units | None
    scores: str
    gap: str = CLASSES.gap

    @property
    def calibrated(self) -> bool:
        return self.units is not None

    @cached_property
    def size(self) -> np.ndarray:
        """Support estimates, int32 `[n]`; 0 if no removal of at most K is predicted to flip."""
        found = np.zeros(len(self.logit_gap), np.int32)
        for rows in self._blocks():
            flips = self._likely(rows) >= self.probability
            found[rows] = np.where(flips.any(axis=1), flips.argmax(axis=1) + 1, 0)
        return found

    @cached_property
    def likeliest(self) -> np.ndarray:
        """Largest probability of a flip without up to K rows `[n]`; −1 where none is predicted."""
        return np.concatenate([self._likely(rows).max(axis=1) for rows in self._blocks()])

    @cached_property
    def ranked(self) -> np.ndarray:
        """Rows predicted to flip: smallest support first, then largest flipped logit gap."""
        rows = np.flatnonzero(self.size)
        if not len(rows):
            return rows
        after = self.after(rows)[np.arange(len(rows)), self.size[rows] - 1]
        beyond = np.where(self.right[rows], after, -after)
        return rows[np.lexsort((beyond, self.size[rows]))]

    def after(self, tests: np.ndarray) -> np.ndarray:
        """Predicted logit gaps without the first 1 to K removed rows: float64 `[t, K]`."""
        gaps: np.ndarray = self.logit_gap[tests, None] + self._changes(tests)[0]
        return gaps

    def half_width(self, tests: np.ndarray) -> np.ndarray:
        """Half-widths of the 95 % intervals of `after`: float64 `[t, K]`."""
        deviation, freedom = self._errors(tests)
        half_width: np.ndarray = _quantile(freedom) * deviation
        return half_width

    def chance_half_width(self, tests: np.ndarray) -> np.ndarray:
        """Half-widths of the 95 % intervals of `logit_gap` itself: float64 `[t]`."""
        error = self.logit_gap_deviation[tests] / np.sqrt(self.checkpoints)
        half_width: np.ndarray = error * _quantile(np.array(self.checkpoints - 1.0))
        return half_width

    def flip_probability(self, tests: np.ndarray) -> np.ndarray:
        """Probability of a flip without the first 1 to K removed rows: float64 `[t, K]`."""
        deviation, freedom = self._errors(tests)
        return beyond(self.right[tests, None], self.after(tests), deviation, freedom)

    def chance_probability(self, tests: np.ndarray) -> np.ndarray:
        """`flip_probability` with nothing removed, by chance alone: float64 `[t]`."""
        error = self.logit_gap_deviation[tests, None] / np.sqrt(self.checkpoints)
        freedom = np.full(error.shape, self.checkpoints - 1.0)
        gaps = self.logit_gap[tests, None]
        return beyond(self.right[tests, None], gaps, error, freedom)[:, 0]

    def removal(self, test: int, size: int | None = None) -> np.ndarray:
        """Training rows to remove, strongest first: `size` of them, or the support estimate."""
        rows = self.index[test, : self.size[test] if size is None else size]
        return rows[rows >= 0]

    def _changes(self, tests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.units is None:
            nothing = np.full((len(tests), self.index.shape[1]), np.nan)
            return nothing, nothing
        return removals(self.score[tests], self.units, tests)

    def _errors(self, tests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Standard deviations of the errors of `after`, and their degrees of freedom `[t, K]`.

        By Welch and Satterthwaite: the variance over the checkpoints is estimated from few, that of
        the change is known.
        """
        of_change = np.square(self._changes(tests)[1] / TWO_SIDED_95)
        of_checkpoints = np.square(self.logit_gap_deviation[tests, None]) / self.checkpoints
        variance = of_change + of_checkpoints
        share = of_checkpoints / np.maximum(variance, _SMALL)
        freedom = max(self.checkpoints - 1, 1) / np.maximum(np.square(share), _SMALL)
        return np.sqrt(variance), np.minimum(freedom, _NORMAL)

    def _blocks(self) -> Iterator[np.ndarray]:
        """All test rows, so many at a time as fit into memory with K numbers each."""
        step = max(1, _BLOCK_BYTES // (64 * self.at_most))
        for block in ranges(range(len(self.logit_gap)), step):
            yield np.arange(block.start, block.stop)

    def _likely(self, tests: np.ndarray) -> np.ndarray:
        """`flip_probability`, or −1 where no flip is predicted whatever it is: `[t, K]`."""
        if self.units is None:
            return np.full((len(tests), self.index.shape[1]), -1.0)
        agreed = self.agreement[tests, None] >= REQUIRED_AGREEMENT
        likely: np.ndarray = np.where(
            agreed & (self.index[tests] >= 0), self.flip_probability(tests), -1.0
        )
        return likely


def beyond(
    right: np.ndarray, gaps: np.ndarray, deviation: np.ndarray, freedom: np.ndarray
) -> np.ndarray:
    """Probability that logit gaps with these errors are on the other side of 0.

    Args:
        right: Whether the prediction is right now.
        deviation, freedom: Standard deviation of the errors, and its degrees of freedom.
    """
    from scipy.special import stdtr

    towards = np.where(right, -1, 1)
    found: np.ndarray = stdtr(
        np.maximum(freedom, 1), towards * gaps / np.maximum(deviation, _SMALL)
    )
    return found


def _quantile(freedom: np.ndarray) -> np.ndarray:
    """The two-sided 95 % quantile of Student's t."""
    from scipy.special import stdtrit

    quantile: np.ndarray = stdtrit(np.maximum(freedom, 1), 0.975)
    return quantile


def find(
    study: StudyReader,
    algorithm: str | None = None,
    method: str | None = None,
    at_most: int = AT_MOST,
    probability: float = PROBABILITY,
) -> Supports:
    """Estimate the support of every test example.

    Args:
        at_most: The largest size of a removal set. Up to the number that the search stage stores,
            examples are read; beyond it, the scores are searched in blocks.
        probability: The least probability at which a flip is predicted.

    Raises:
        MissingCapability: Predictions of the study are neither right nor wrong.
        DataloupeError: No such algorithm or method, `at_most` is not from 1 to `MOST`, or
            `probability` is not from 0.5 to below 1.
        StoreError: Scores or predictions are not built yet.
    """
    require(study, "outcomes", "Brittle predictions")
    algorithm = resolve_algorithm(study, algorithm)
    method = resolve_method(study, algorithm, method)
    if not 1 <= at_most <= MOST:
        raise DataloupeError(f"at_most must be from 1 to {MOST:,}, not {at_most:,}.")
    if not 0.5 <= probability < 1:
        raise DataloupeError(f"probability must be from 0.5 to below 1, not {probability:g}.")
    right = read_predictions(study, "test", algorithm)["correct"].to_numpy(dtype=bool)
    each, agreeing, known = logit_gaps(study, algorithm)
    checkpoints = len(each)
    index, score = _strongest(study, algorithm, method, min(at_most, study.dataset.n_train), right)
    keep_one_of_every_class(study, index, score)
    return Supports(
        algorithm=algorithm,
        method=method,
        at_most=at_most,
        probability=probability,
        right=right,
        logit_gap=each.mean(axis=0),
        # Unknown for a single checkpoint, and then treated as 0.
        logit_gap_deviation=each.std(axis=0, ddof=1) if checkpoints > 1 else np.zeros(len(right)),
        agreement=agreeing.mean(axis=0),
        checkpoints=checkpoints,
        index=index,
        score=score,
        units=read_units(study, algorithm, method) if known else None,
        scores=store.json_fingerprint(layout.search_file(study.root, algorithm, method)),
        gap=outcomes_of(study).gap,
    )


def _strongest(
    study: StudyReader, algorithm: str, method: str, k: int, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Supporters of correct predictions, opposers of wrong ones: rows and scores `[n, k]`."""
    top = read_top(study, algorithm, method)
    if k > top["support_index"].shape[1]:
        top = _search_scores(study, algorithm, method, k)
    index = np.where(right[:, None], top["support_index"][:, :k], top["oppose_index"][:, :k])
    score = np.where(right[:, None], top["support_score"][:, :k], top["oppose_score"][:, :k])
    return index, score


def _search_scores(
    study: StudyReader, algorithm: str, method: str, k: int
) -> dict[str, np.ndarray]:
    """Top-k of both signs, in blocks of test rows, for a k larger than the stored one."""
    scores = read_score_matrix(study, algorithm, method)
    # Per score: the score, its key in 8 bytes, one of each sign, and the memory of sorting.
    step = max(1, _BLOCK_BYTES // (32 * scores.n_train))
    all_rows = np.arange(scores.n_train)
    parts = []
    for block in ranges(range(scores.n_test), step):
        rows = scores.rows(np.arange(block.start, block.stop))
        parts.append(vars(top_k_among(rows, np.broadcast_to(all_rows, rows.shape), k)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def keep_one_of_every_class(study: StudyReader, index: np.ndarray, score: np.ndarray) -> None:
    """Cut removal sets, in place, before they contain all examples of a class."""
    labels = read_group_numbers(study, "train")
    sizes = np.bincount(labels)
    ended = index < 0
    for label in np.flatnonzero(sizes <= index.shape[1]):
        members = (labels[index] == label) & (index >= 0)
        ended |= np.cumsum(members, axis=1) >= sizes[label]
    index[ended], score[ended] = -1, 0


# --- verifying ----------------------------------------------------------------------------------


def verify_brittle(
    study: StudyReader,
    supports: Supports,
    tests: Iterable[int],
    *,
    seeds: int = 5,
    device: str = "auto",
    workers: int | None = None,
    report: Report | None = None,
) -> list[Verification]:
    """Retrain without the removal sets of test examples predicted to flip, and keep the results.

    Raises as `engine.applications.verification.verify`, and a DataloupeError for a test example
    that is not predicted to flip.
    """
    return verify_all(
        study,
        requests(study, supports, tests),
        seeds=seeds,
        algorithm=supports.algorithm,
        method=supports.method,
        device=device,
        workers=workers,
        report=report,
    )


def requests(study: StudyReader, supports: Supports, tests: Iterable[int]) -> list[Request]:
    """The removal sets of test examples predicted to flip. Raises as `verify_brittle`."""
    found = []
    for test in tests:
        if not supports.size[test]:
            raise DataloupeError(
                f"Test example {test} is not predicted to flip by removing at most "
                f"{counted(supports.at_most, 'training example')}, so there is no removal set to "
                "verify."
            )
        found.append(request_of(study, supports.removal(test).tolist(), [test]))
    return found


def verified(supports: Supports, verifications: Sequence[Verification]) -> dict[int, Verification]:
    """The newest verification of each test example's removal set."""
    wanted = {
        (int(test), tuple(sorted(supports.removal(test).tolist()))) for test in supports.ranked
    }
    return {
        outcome.test: one
        for one in verifications
        for outcome in one.outcomes
        if (outcome.test, tuple(one.removed)) in wanted
    }
