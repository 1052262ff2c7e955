"""Describe a distinguishing direction: its examples, their groups, and a summary."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.applications.modeldiff.residuals import Directions
from engine.applications.modeldiff.significance import LEVEL
from engine.store.layout import SPLITS
from engine.store.quantities import ACCURACY, P_VALUE, SHARE
from engine.store.text import counted
from engine.study.capabilities import has
from engine.study.groups import read_groups
from engine.study.models import has_predictions, read_predictions
from engine.study.reader import StudyReader

SHOWN = 50
"""Number of training rows of each sign, and largest size of the subpopulation of test rows."""
_SHARE = 0.05
"""Share of the test examples in the subpopulation, up to `SHOWN`."""


@dataclass(frozen=True)
class Account:
    """One direction along which one algorithm's attributions vary and the other's do not.

    Attributes:
        number: From 0, strongest first.
        variance: Variance of the residuals along it.
        own_variance, other_variance: Shares of the variance of both algorithms' attributions.
        stability: Median cosine with the direction found on resampled test examples.
        p: p-value of the direction under chance in training; None if not tested.
        positive, negative: Training rows with the largest weights of either sign.
        positive_weights, negative_weights: Their weights.
        positive_groups, negative_groups: Share of each group, such as a class, among them,
            largest first; empty without groups.
        tests: Test rows with the largest projections of either sign: the subpopulation.
        projections: Their projections. If positive, the positive training rows support the test
            example more under the one algorithm than under the other; if negative, they oppose it.
        test_groups: Share of each group among them.
        own_accuracy, other_accuracy: Accuracy of both algorithms on them; None without
            predictions, and for tasks without right and wrong.
        reading: A summary in a sentence or two.
    """

    number: int
    variance: float
    own_variance: float
    other_variance: float
    stability: float
    p: float | None
    positive: list[int]
    positive_weights: list[float]
    positive_groups: dict[str, float]
    negative: list[int]
    negative_weights: list[float]
    negative_groups: dict[str, float]
    tests: list[int]
    projections: list[float]
    test_groups: dict[str, float]
    own_accuracy: float | None
    other_accuracy: float | None
    reading: str

    @property
    def significant(self) -> bool | None:
        """Whether it is beyond chance in training; None if not tested."""
        return None if self.p is None else self.p < LEVEL

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "significant": self.significant}


def accounts(
    study: StudyReader,
    found: Directions,
    p: np.ndarray,
    own: str,
    other: str,
    names: tuple[str, str],
) -> list[Account]:
    """Describe each direction.

    Args:
        study: The study of both algorithms.
        found: Directions of `own`∖`other`.
        p: p-value of each direction; NaN if not tested.
        own, other: The algorithms.
        names: Their display names.
    """
    groups = {split: read_groups(study, split) for split in SPLITS}
    right = {
        name: read_predictions(study, "test", name)["correct"].to_numpy()
        for name in (own, other)
        if has(study, "outcomes") and has_predictions(study, name)
    }
    n_tests = max(1, min(SHOWN, round(_SHARE * study.dataset.n_test)))
    result = []
    for number, weights in enumerate(found.weights):
        order = np.argsort(-weights, kind="stable")
        positive = order[:SHOWN][weights[order[:SHOWN]] > 0]
        negative = order[::-1][:SHOWN][weights[order[::-1][:SHOWN]] < 0]
        along = found.projections[:, number]
        tests = np.argsort(-np.abs(along), kind="stable")[:n_tests]
        about: dict[str, Any] = {
            "number": number,
            "variance": float(found.variance[number]),
            "own_variance": float(found.variance_a[number]),
            "other_variance": float(found.variance_b[number]),
            "stability": float(found.stability[number]),
            "p": None if np.isnan(p[number]) else float(p[number]),
            "positive": positive.tolist(),
            "positive_weights": weights[positive].tolist(),
            "positive_groups": _shares(groups["train"], positive),
            "negative": negative.tolist(),
            "negative_weights": weights[negative].tolist(),
            "negative_groups": _shares(groups["train"], negative),
            "tests": tests.tolist(),
            "projections": along[tests].tolist(),
            "test_groups": _shares(groups["test"], tests),
            "own_accuracy": float(right[own][tests].mean()) if own in right else None,
            "other_accuracy": float(right[other][tests].mean()) if other in right else None,
        }
        result.append(Account(**about, reading=_reading(about, *names)))
    return result


def _shares(groups: np.ndarray | None, rows: np.ndarray) -> dict[str, float]:
    if groups is None:
        return {}
    counts = Counter(str(name) for name in groups[rows])
    return {name: count / len(rows) for name, count in counts.most_common()}


def _reading(about: dict[str, Any], own: str, other: str) -> str:
    """The numbers as text, with nothing added."""
    tests, trains, against = (
        _main(about[f"{which}_groups"], len(about[rows]))
        for which, rows in (("test", "tests"), ("positive", "positive"), ("negative", "negative"))
    )
    if about["own_variance"] > about["other_variance"]:
        contrast = f"{other} less so"
    else:
        contrast = f"but {other} as much, in a different way"
    difference = f"{own} relies on {trains} against {against}, {contrast}"
    text = (
        f"On {tests}, {difference}: the direction explains "
        f"{ACCURACY.text(about['own_variance'])} of the variance of {own}'s attributions and "
        f"{ACCURACY.text(about['other_variance'])} of {other}'s."
    )
    if about["own_accuracy"] is not None and about["other_accuracy"] is not None:
        text += (
            f" On these test examples, {own} is correct on "
            f"{ACCURACY.text(about['own_accuracy'])} and {other} on "
            f"{ACCURACY.text(about['other_accuracy'])}."
        )
    if about["p"] is None:
        return text + " Its significance was not tested."
    if about["p"] >= LEVEL:
        return text + " It is not beyond chance in training."
    return text + f" It is beyond chance in training (p = {P_VALUE.text(about['p'])})."


def _main(shares: dict[str, float], examples: int) -> str:
    if not examples:
        return "no example"
    if not shares:
        return counted(examples, "example")
    name, share = next(iter(shares.items()))
    if share >= 0.5:
        return f"examples of {name} ({SHARE.text(share)} of the strongest)"
    others = list(shares)[:3]
    return f"examples of several classes ({', '.join(others)})"
