"""Imitate A and B as one algorithm: pairs of scores that differ by chance in training alone.

Every pair differs in all that the method's scores depend on: the noise of checkpoints for TRAK
(`checkpoint_noise`), subset runs for a datamodel (`exchanged_runs`), both for the hybrid, which is
fitted again with the imitated TRAK as its prior. Each pair has as many checkpoints and runs as A
and B have, so it is as noisy as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.applications.modeldiff.checkpoint_noise import (
    FEWEST_CHECKPOINTS,
    MOST_PAIRS,
    Common,
    Contrast,
    Plan,
    common_part,
    imitate,
    noise_of_mean,
    plan,
)
from engine.applications.modeldiff.checkpoint_scores import MOST_BYTES, sum_of_checkpoints
from engine.applications.modeldiff.exchanged_runs import FEWEST_MASKS, can_exchange, exchange_runs
from engine.applications.modeldiff.refits import refit_datamodel, refit_hybrid
from engine.applications.modeldiff.residuals import Attributions, squared_lengths, without_threshold
from engine.attribution.datamodels.run_bank import RunBank
from engine.attribution.scores.dense import DenseScores
from engine.store.layout import DATAMODEL, HYBRID, TRAK
from engine.store.spec import PARTS
from engine.study.reader import StudyReader
from engine.study.run_banks import read_bank
from engine.study.score_matrices import read_score_matrix

DEPENDS_ON = {
    TRAK: "checkpoints",
    DATAMODEL: "subset runs",
    HYBRID: "checkpoints and subset runs",
}
"""What the scores of each built-in method depend on, and what is imitated."""
_CHECKPOINTS = f"at least one algorithm needs {FEWEST_CHECKPOINTS} checkpoints or more"
_RUNS = f"both algorithms need {FEWEST_MASKS * len(PARTS)} masks of subset runs or more"
NEEDED = {TRAK: _CHECKPOINTS, DATAMODEL: _RUNS, HYBRID: f"{_CHECKPOINTS}, and {_RUNS}"}
"""The least that a test needs, by method."""


@dataclass(frozen=True)
class ByCheckpoints:
    """TRAK scores of both algorithms, and how to imitate them.

    Attributes:
        plan: Which contrasts to use.
        common: What A's and B's scores have in common.
        noise: Computes the scores of a contrast.
    """

    plan: Plan
    common: Common
    noise: Callable[[Contrast], Attributions]

    def pair(self, number: int) -> tuple[Attributions, Attributions]:
        difference = [
            (contrast.of_a, factor, self.noise(contrast))
            for contrast, factor in self.plan.differences[number]
        ]
        a, b = map(_in_memory, imitate(self.common, difference))
        return a, b


@dataclass(frozen=True)
class ByRuns:
    """The runs that both algorithms' scores were fitted to, and how to fit to others.

    Attributes:
        a, b: The runs.
        refit: Fits to runs, with a prior if the method has one; True for A.
    """

    a: RunBank
    b: RunBank
    refit: Callable[[bool, Attributions | None, RunBank], Attributions]


@dataclass(frozen=True)
class Chance:
    """How to make pairs that differ by chance alone.

    Attributes:
        checkpoints: None if the method does not depend on them.
        runs: None likewise.
        seed: Seed of the exchange of runs.
    """

    checkpoints: ByCheckpoints | None
    runs: ByRuns | None
    seed: int

    @property
    def pairs(self) -> int:
        return MOST_PAIRS if self.checkpoints is None else len(self.checkpoints.plan.differences)

    @property
    def independent(self) -> float:
        """How many independent pairs they are worth."""
        if self.checkpoints is None:
            return self.pairs
        return min(self.pairs, self.checkpoints.plan.independent)

    def pair(self, number: int) -> tuple[Attributions, Attributions]:
        """Scores that stand for A's and for B's."""
        priors: Sequence[Attributions | None] = (None, None)
        if self.checkpoints is not None:
            priors = of_a, of_b = self.checkpoints.pair(number)
            if self.runs is None:
                return of_a, of_b
        if self.runs is None:
            raise ValueError("scores that depend on nothing do not differ by chance")
        generator = np.random.default_rng([self.seed, number])
        runs = exchange_runs(self.runs.a, self.runs.b, generator)
        a, b = map(self.runs.refit, (True, False), priors, runs)
        return a, b


def chance_of(study: StudyReader, a: str, b: str, method: str) -> Chance | None:
    """How to imitate A and B, both compared by this method.

    Returns:
        None if there is too little to tell what chance does, or the method is imported.
    """
    if method not in DEPENDS_ON:
        return None
    runs = checkpoints = None
    if method in (DATAMODEL, HYBRID):
        runs = _by_runs(study, a, b, method)
        if not can_exchange(runs.a, runs.b):
            return None
    if method in (TRAK, HYBRID):
        checkpoints = _by_checkpoints(study, a, b)
        if checkpoints is None:
            return None
    return Chance(checkpoints, runs, study.spec.seed)


def _by_checkpoints(study: StudyReader, a: str, b: str) -> ByCheckpoints | None:
    found = plan(study.checkpoints(a), study.checkpoints(b), study.spec.seed)
    if found is None:
        return None
    scores = [without_threshold(read_score_matrix(study, one, TRAK)) for one in (a, b)]
    noise_a, noise_b = (
        _noise_of(study, one, whole) for one, whole in zip((a, b), scores, strict=True)
    )
    common = common_part(scores[0], scores[1], found, (noise_a, noise_b))

    def noise(contrast: Contrast) -> Attributions:
        return sum_of_checkpoints(study, a if contrast.of_a else b, contrast.shares)

    return ByCheckpoints(found, replace(common, rows=_in_memory(common.rows)), noise)


def _noise_of(study: StudyReader, algorithm: str, scores: Attributions) -> np.ndarray | None:
    """`noise_of_mean` of an algorithm; None for too few checkpoints."""
    count = study.checkpoints(algorithm)
    if count < FEWEST_CHECKPOINTS:
        return None
    squares = [
        squared_lengths(sum_of_checkpoints(study, algorithm, {m: 1.0})) for m in range(count)
    ]
    return noise_of_mean(np.stack(squares), squared_lengths(scores))


def _by_runs(study: StudyReader, a: str, b: str, method: str) -> ByRuns:
    of_a, of_b = (read_bank(study, one, train=False).part("fit", "validation") for one in (a, b))

    def refit(is_a: bool, prior: Attributions | None, runs: RunBank) -> Attributions:
        if prior is None:
            return refit_datamodel(runs)
        return refit_hybrid(study, a if is_a else b, prior, runs)

    return ByRuns(of_a, of_b, refit)


def _in_memory(scores: Attributions) -> Attributions:
    """The same scores as one matrix, unless it is too large."""
    if 4 * scores.n_test * scores.n_train > MOST_BYTES:
        return scores
    return DenseScores([scores.rows(np.arange(scores.n_test))])
