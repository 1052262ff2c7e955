"""Does ModelDiff keep its promise? Rates of false positives, and a planted difference.

Two algorithms that learn the same are simulated and compared by the engine's own functions. Their
checkpoints differ from each other by noise of four kinds in turn: independent, of low rank, shared
by groups of test examples, and heavy-tailed. Runs add noise that test examples share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks._report import log
from benchmarks._study import built
from engine.applications.modeldiff.chance import ByCheckpoints, ByRuns, Chance
from engine.applications.modeldiff.checkpoint_noise import (
    FEWEST_CHECKPOINTS,
    Contrast,
    common_part,
    noise_of_mean,
    plan,
)
from engine.applications.modeldiff.comparison import compare, read_comparison, side
from engine.applications.modeldiff.residuals import (
    Attributions,
    directions,
    residuals,
    squared_lengths,
)
from engine.applications.modeldiff.significance import Null, null_of, p_values
from engine.attribution.datamodels import hybrid
from engine.attribution.datamodels.run_bank import RunBank
from engine.attribution.scores.dense import DenseScores
from engine.data.templates import spec_from_template
from engine.store.layout import HYBRID
from engine.store.spec import PARTS

N_TEST, N_TRAIN, K = 50, 100, 5
KINDS = ("independent", "low rank", "shared", "heavy")
RUNS = 300


@dataclass(frozen=True)
class Simulated:
    """One algorithm: scores of single checkpoints, and perhaps runs with the hybrid's settings."""

    checkpoints: np.ndarray
    runs: RunBank | None = None
    settings: hybrid.Settings | None = None

    def scores(self, prior: np.ndarray, runs: RunBank | None) -> DenseScores:
        """The scores compared: the prior itself, or the hybrid with it."""
        if runs is None or self.settings is None:
            return DenseScores([prior])
        tau, masks, outputs = map(torch.from_numpy, (prior, runs.masks, runs.test))
        tau = tau * hybrid.output_units(tau, masks, outputs, self.settings.ridge)
        return DenseScores([hybrid.fit(tau, masks, outputs, self.settings).weights.numpy()])


@dataclass(frozen=True)
class Judged:
    """Distinguishing variances of A∖B and of B∖A, and what chance alone gives."""

    gaps: tuple[np.ndarray, np.ndarray]
    null: Null

    @property
    def smallest_p(self) -> float:
        """Over all directions of both sides."""
        return min(
            float(p_values(gaps, self.null, of_a).min())
            for gaps, of_a in zip(self.gaps, (True, False), strict=True)
        )


def judge(a: Simulated, b: Simulated) -> Judged:
    """Compare them like two algorithms of a study."""
    scores_a, scores_b = (one.scores(one.checkpoints.mean(axis=0), one.runs) for one in (a, b))
    chance = _chance(a, b)
    pairs = (chance.pair(number) for number in range(chance.pairs))
    gaps_a, gaps_b = (
        directions(residuals(*sides), K, tolerance=1e-3, resamples=0).distinguishing
        for sides in ((scores_a, scores_b), (scores_b, scores_a))
    )
    return Judged((gaps_a, gaps_b), null_of(pairs, chance.independent, K))


def _chance(a: Simulated, b: Simulated) -> Chance:
    contrasts = plan(len(a.checkpoints), len(b.checkpoints))
    if contrasts is None:
        raise ValueError("at least one algorithm needs three checkpoints")
    means = [DenseScores([one.checkpoints.mean(axis=0)]) for one in (a, b)]
    noise_a, noise_b = (
        noise_of_mean(np.square(one.checkpoints).sum(axis=2), squared_lengths(mean))
        if len(one.checkpoints) >= FEWEST_CHECKPOINTS
        else None
        for one, mean in zip((a, b), means, strict=True)
    )
    common = common_part(means[0], means[1], contrasts, (noise_a, noise_b))

    def noise(contrast: Contrast) -> Attributions:
        own = (a if contrast.of_a else b).checkpoints
        shares = np.array([contrast.shares[n] for n in range(len(own))], np.float32)
        return DenseScores([np.tensordot(shares, own, axes=1)])

    def refit(is_a: bool, prior: Attributions | None, runs: RunBank) -> Attributions:
        if prior is None:
            raise ValueError("the hybrid has a prior")
        return (a if is_a else b).scores(prior.rows(np.arange(N_TEST)), runs)

    by_runs = None if a.runs is None or b.runs is None else ByRuns(a.runs, b.runs, refit)
    return Chance(ByCheckpoints(contrasts, common, noise), by_runs, 0)


def truth(generator: np.random.Generator) -> np.ndarray:
    """What an algorithm relies on: scores without noise `[N_TEST, N_TRAIN]`."""
    parts = generator.normal(size=(N_TEST, 8)), generator.normal(size=(8, N_TRAIN))
    return np.asarray(parts[0] @ parts[1] / 8**0.5)


def checkpoints(
    generator: np.random.Generator, signal: np.ndarray, count: int, kind: str
) -> np.ndarray:
    """Scores of single checkpoints `[count, N_TEST, N_TRAIN]` float32."""

    def draw(size: tuple[int, ...]) -> np.ndarray:
        if kind == "heavy":
            return np.asarray(generator.standard_t(3, size=size) / 3**0.5)
        return generator.standard_normal(size)

    each = draw((count, N_TEST, N_TRAIN))
    if kind == "independent":
        noise = 1.5 * each
    elif kind == "shared":
        noise = 0.5 * each + draw((count, 6, N_TRAIN))[:, np.arange(N_TEST) % 6]
    else:
        noise = 0.7 * each + draw((count, N_TEST, 5)) @ draw((count, 5, N_TRAIN)) / 5**0.5
    return (signal + noise).astype(np.float32)


def bank(
    generator: np.random.Generator, signal: np.ndarray, masks: np.ndarray, noise: float = 2.0
) -> RunBank:
    """Runs on these masks: linear in the mask, with noise that test examples share."""
    shared = generator.normal(size=(len(masks), 6))[:, np.arange(N_TEST) % 6]
    each = generator.normal(size=(len(masks), N_TEST))
    outputs = (masks - 0.5) @ signal.T + noise * (shared + each)
    numbers = np.flatnonzero([PARTS[n % len(PARTS)] != "test" for n in range(2 * len(masks))])
    ones = np.ones(len(masks), np.int64)
    return RunBank(masks, None, outputs.astype(np.float32), ones, numbers[: len(masks)])


def with_runs(algorithm: Simulated, runs: RunBank) -> Simulated:
    """The same algorithm with runs, and the settings that the hybrid chooses on them.

    A third of the test examples choose, to save time.
    """
    fitted, validation = runs.part("fit"), runs.part("validation")
    of, some = torch.from_numpy, slice(None, None, 3)
    choice = hybrid.choose(
        of(algorithm.checkpoints.mean(axis=0)[some]),
        of(fitted.masks),
        of(fitted.test[:, some]),
        of(validation.masks),
        of(validation.test[:, some]),
    )
    return replace(algorithm, runs=runs, settings=choice.settings)


def same_algorithm(seed: int, count: int, runs: int = 0) -> tuple[Simulated, Simulated]:
    """Two algorithms that learn the same. Every other pair has the same masks, like in a study."""
    generator = np.random.default_rng([1, count, runs, seed])
    signal, kind = truth(generator), KINDS[seed % len(KINDS)]
    a, b = (Simulated(checkpoints(generator, signal, count, kind)) for _ in "ab")
    if not runs:
        return a, b
    masks = [generator.random((runs, N_TRAIN)) < 0.5 for _ in "ab"]
    if seed // len(KINDS) % 2:
        masks[1] = masks[0]
    a, b = (
        with_runs(one, bank(generator, signal, mask))
        for one, mask in zip((a, b), masks, strict=True)
    )
    return a, b


def false_positives(pairs: int, level: float, count: int, runs: int = 0) -> int:
    """How many pairs of equal algorithms have a significant direction."""
    found = 0
    for seed in range(pairs):
        found += judge(*same_algorithm(seed, count, runs)).smallest_p < level
        if seed % 50 == 49:
            log(f"modeldiff, {count} checkpoints, {runs} runs: {found} of {seed + 1}")
    return found


def planted_hybrid() -> dict[str, float]:
    """The planted shortcut by the hybrid: p of direction 1 of `sees`, and who carries the patch."""
    spec = spec_from_template("case-shortcut")
    study = built(f"shortcut-{RUNS}", f"{spec}\n[subset_runs]\nmasks = {RUNS}\n")
    a, b = (side(study, name, HYBRID) for name in ("sees", "covered"))
    first = read_comparison(study, compare(study, a, b))["directions"]["a"][0]
    carries = study.table("train")["patch"].to_numpy(bool)
    return {
        "planted_hybrid_p": float(first["p"]),
        "planted_hybrid_precision_at_50": float(carries[first["positive"]].mean()),
    }
