"""What scores can and cannot be used for, by rules that follow from the measurements.

docs/quality.md lists the rules. LDS measures how well sums of scores order the outcomes of training
on random parts of the data. Calibration measures whether they are amounts. Neither is measured on
the removal of single examples, and the texts do not claim so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.attribution.evaluation.ceiling import LEAST_MASKS
from engine.attribution.evaluation.quality import MethodQuality, Quality
from engine.store.quantities import LDS, SHARE, SLOPE

Answer = Literal["yes", "care", "no"]

FAIR, GOOD, STRONG = 0.1, 0.3, 0.6
"""Lowest mean LDS of each grade."""
MUCH_EXPLAINED = 0.25
"""R² from which a calibrated score is more than a rough amount."""
WIDE = 0.2
FEW_RUNS = 20
"""An interval wider than `WIDE`, or fewer test masks than this, calls for more runs."""
HONEST = (0.85, 0.95)
"""Coverage in which 90 % intervals count as honest."""
ONE_SIDED_95 = 1.645
NAMED = 5


@dataclass(frozen=True)
class Use:
    """A possible use of scores, and whether they are good enough for it."""

    what: str
    answer: Answer
    why: str


@dataclass(frozen=True)
class Verdict:
    """What one method's scores can be used for.

    Attributes:
        grade: One to three words.
        summary: One or two sentences.
        uses: Possible uses, each with a judgment.
        cautions: What else to know, most important first.
    """

    grade: str
    summary: str
    uses: list[Use]
    cautions: list[str]


def verdict(quality: Quality, method: str, of_each: np.ndarray | None = None) -> Verdict:
    """Judge a method that was measured.

    Args:
        quality: The measurements.
        method: Its name in `quality.methods`.
        of_each: LDS of every test example `[n_test]`, if known.
    """
    measured = quality.methods[method]
    grade, summary = _grade(measured, quality)
    uses = [_find(measured), _sums(measured), _amounts(measured, quality), _compare(measured)]
    if measured.coverage is not None:
        uses.append(_intervals(measured.coverage))
    uses.append(
        Use(
            "Prove what one example did",
            "no",
            "Only retraining without it does that. Scores were checked on models that had "
            f"{quality.alpha:.0%} of the training data, and sizes on removals of many examples at "
            "once, never on the removal of one.",
        )
    )
    return Verdict(grade, summary, uses, _cautions(quality, method, of_each))


def chance(runs: int) -> float:
    """The rank correlation that shuffled scores of one test example exceed once in 20 times.

    Args:
        runs: Number of outcomes that are correlated; at least 2.
    """
    return min(1.0, ONE_SIDED_95 / math.sqrt(runs - 1))


def ordered(correlation: float) -> float:
    """Share of pairs of outcomes in the right order, at this rank correlation (Spearman's).

    Exact for bivariate normal values: Pearson's r = 2 sin(π ρ / 6), and pairs agree with
    probability 1/2 + arcsin(r) / π (Kruskal 1958, Ordinal measures of association).
    """
    return 0.5 + math.asin(2 * math.sin(math.pi * correlation / 6)) / math.pi


def ceiling_text(quality: Quality, method: str | None = None) -> str:
    """What follows “Noise ceiling”: its value, or why it is unknown, and a method's share of it."""
    ceiling = quality.ceiling
    if ceiling is None:
        return _no_ceiling(quality)
    if ceiling.low <= 0:
        return (
            f"{LDS.interval(ceiling)}: runs of one mask agree no more than chance would have it, "
            "so there is nothing that scores could predict."
        )
    found = f"{LDS.interval(ceiling)}: the LDS that perfect predictions would reach on these runs."
    share = None if method is None else quality.share_of_ceiling(method)
    return found if share is None else f"{found} These scores reach {SHARE.text(share)} of it."


def _no_ceiling(quality: Quality) -> str:
    masks = quality.masks["test"]
    if masks < LEAST_MASKS:
        return f"unknown: it takes {LEAST_MASKS} test masks, and there are {masks}."
    if quality.seeds == 1:
        return (
            "unknown: each test mask has one run, and only a second one shows how much of an "
            "outcome is chance. LDS and R² come out lower than the scores deserve."
        )
    return "unknown until the next `dataloupe build`."


def few_runs(quality: Quality, method: str) -> bool:
    """Whether more runs would narrow this method's interval much."""
    lds = quality.methods[method].lds
    return lds.high - lds.low > WIDE or quality.masks["test"] < FEW_RUNS


def _grade(measured: MethodQuality, quality: Quality) -> tuple[str, str]:
    lds = measured.lds
    if not measured.beats_chance:
        return (
            "Do not use",
            f"On {quality.masks['test']:,} held-out masks these scores cannot be told from "
            f"shuffled ones: the interval of their LDS, {LDS.interval(lds)}, holds 0.",
        )
    grade = next(
        name
        for least, name in ((STRONG, "Strong"), (GOOD, "Good"), (FAIR, "Fair"), (-1.0, "Weak"))
        if lds.mean >= least
    )
    return (
        grade,
        f"On held-out subset runs their LDS is {LDS.interval(lds)}. So of two runs they name the "
        f"one with the higher {quality.output} about {100 * ordered(lds.mean):.0f} times in 100; "
        "chance is 50.",
    )


def _find(measured: MethodQuality) -> Use:
    what = "Find training examples to look at"
    if not measured.beats_chance:
        return Use(what, "no", "Their order may be due to chance.")
    if measured.lds.mean < FAIR:
        return Use(what, "care", "Many of the top examples will have had no effect. Look at many.")
    return Use(
        what, "yes", "The strongest ones are candidates: look at them before you believe one."
    )


def _sums(measured: MethodQuality) -> Use:
    what = "Sum scores over many examples, such as a group or a source"
    if not measured.beats_chance:
        return Use(what, "no", "Sums are what was measured, and they predict nothing.")
    if measured.lds.mean < FAIR:
        return Use(what, "care", "Sums are what was measured, and they predict little.")
    return Use(
        what,
        "yes",
        "Sums are what was measured: they order outcomes with a rank correlation of "
        f"{LDS.text(measured.lds.mean)}.",
    )


def _amounts(measured: MethodQuality, quality: Quality) -> Use:
    what = f"Read scores as a change of the {quality.output}"
    units = measured.units
    if units is None:
        why = "no slope holds on the held-out runs"
        why = why if measured.beats_chance else "they may be due to chance"
        return Use(what, "no", f"They have no unit: {why}.")
    slope = SLOPE.interval(units.slope)
    why = (
        f"Between random subsets, the {quality.output} changes by {slope} times the sum of the "
        f"scores, on average. That explains {SHARE.text(units.r_squared)} of how outcomes differ"
    )
    if measured.effects is not None and not measured.effects.removals:
        return Use(
            what,
            "care",
            f"{why}. No model was trained on all the data but a few examples, so the size of a "
            "removal's effect is rough.",
        )
    if units.r_squared < MUCH_EXPLAINED:
        return Use(what, "care", f"{why}: the size is rough, and one retraining may well differ.")
    return Use(what, "yes", f"{why}.")


def _compare(measured: MethodQuality) -> Use:
    what = "Compare scores of different predictions"
    if measured.units is None:
        return Use(what, "no", "LDS is measured within each prediction, and there is no unit.")
    if _untrusted(measured):
        return Use(what, "care", "One slope fits them all, but not every class is predicted.")
    return Use(what, "yes", "One slope fits them all, so they share a unit.")


def _intervals(coverage: float) -> Use:
    what = "Rely on the method's own intervals"
    found = f"Its 90% intervals held {SHARE.text(coverage)} of the held-out outcomes"
    if coverage < HONEST[0]:
        return Use(what, "no", f"{found}: they are too narrow.")
    if coverage > HONEST[1]:
        return Use(what, "care", f"{found}: they are wider than necessary.")
    return Use(what, "yes", f"{found}.")


def _untrusted(measured: MethodQuality) -> list[str]:
    return [label for label, lds in measured.by_group.items() if lds.low <= 0]


def _cautions(quality: Quality, method: str, of_each: np.ndarray | None) -> list[str]:
    measured, runs = quality.methods[method], quality.masks["test"]
    found = []
    if few_runs(quality, method):
        found.append(
            f"Few runs: {runs:,} held-out masks leave a wide interval. Raise masks under "
            "[subset_runs] in study.toml; existing runs are reused."
        )
    if measured.beats_chance and (classes := _untrusted(measured)):
        named = ", ".join(f"“{_short(label)}”" for label in classes[:NAMED])
        more = f" and {len(classes) - NAMED:,} more" if len(classes) > NAMED else ""
        found.append(f"Do not trust them on {named}{more}: the interval of that LDS holds 0.")
    if of_each is not None and runs > 1:
        bound = chance(runs)
        below = int((of_each <= bound).sum())
        if below:
            found.append(
                f"For {below:,} of {len(of_each):,} test examples the correlation over {runs:,} "
                f"held-out masks is not above chance ({LDS.text(bound)})."
            )
    best = quality.methods.get(quality.preferred)
    if best is not None and quality.preferred != method:
        found.append(f"Validation prefers {best.title}: LDS {LDS.interval(best.lds)}.")
    rivals = [
        one
        for name, one in quality.methods.items()
        if one.baseline and name != method and one.lds.mean >= measured.lds.mean
    ]
    if rivals:
        rival = max(rivals, key=lambda one: one.lds.mean)
        found.append(f"The plain baseline “{rival.title}” does as well: {LDS.interval(rival.lds)}.")
    if quality.ceiling is None:
        found.append(f"Noise ceiling {ceiling_text(quality)}")
    return found


def _short(label: str) -> str:
    return label if len(label) <= 40 else f"{label[:39]}…"
