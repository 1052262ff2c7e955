"""What looks wrong with a model's predictions, before anybody reads its accuracy."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

_FEWEST = 20
"""With fewer test examples, another order of the classes cannot be told from chance."""
_GAIN, _LEAST = 0.2, 0.5
"""Classes are called reordered if that raises the accuracy by this much, to this at least."""
_SAME = 1e-6
_OTHER_UNIT = 5
"""Outputs that vary so many times more or less than others, or lie so far away, are doubtful."""


def doubts(logits: np.ndarray, labels: np.ndarray, classes: list[str]) -> list[str]:
    """Sentences on what is implausible about a model; none if nothing is.

    Args:
        logits: Finite logits `[n, classes]` of the n test examples.
        labels: Their class numbers `[n]`.
        classes: Names of the classes.
    """
    n = len(logits)
    if n < 2:
        return []
    predicted = logits.argmax(axis=1)
    found = []
    equal = np.ptp(logits, axis=1) <= _SAME * np.abs(logits).max(axis=1)
    if equal.any():
        found.append(
            f"It gives every class the same logit for {equal.sum():,} of {n:,} test examples "
            f"({100 * equal.mean():.3g} %), so their predicted class means nothing."
        )
    if (np.ptp(logits, axis=0) <= _SAME * np.abs(logits).max(axis=0)).all():
        found.append(
            f"It gives the same outputs for all {n:,} test examples: what it is shown does not "
            "reach its outputs."
        )
    elif len(np.unique(predicted)) == 1 and len(np.unique(labels)) > 1:
        found.append(f"It predicts {classes[predicted[0]]} for all {n:,} test examples.")
    elif n >= _FEWEST:
        found += _reordered(predicted, labels, classes)
    return found


def doubtful_outputs(outputs: np.ndarray) -> list[str]:
    """Sentences on what is implausible about model outputs `[n]` of a task without classes."""
    n = len(outputs)
    if n > 1 and np.ptp(outputs) <= _SAME * np.abs(outputs).max():
        return [
            f"It gives the same output for all {n:,} test examples: what it is shown does not "
            "reach its output."
        ]
    return []


def unlike_outputs(outputs: np.ndarray, theirs: np.ndarray) -> list[str]:
    """A sentence if outputs `[n]` have another unit than those of the study's own models.

    A model of regression that was trained on labels of another scale predicts in another unit.
    """
    spread = max(float(theirs.std()), 1e-12)
    if len(outputs) < 2 or not np.ptp(outputs) > 0:
        return []
    ratio = float(outputs.std()) / spread
    shift = abs(float(outputs.mean() - theirs.mean())) / spread
    if _OTHER_UNIT > ratio > 1 / _OTHER_UNIT and shift < _OTHER_UNIT:
        return []
    return [
        f"Its outputs ({outputs.mean():.4g} ± {outputs.std():.2g}) are on another scale than those "
        f"of the study's models ({theirs.mean():.4g} ± {theirs.std():.2g}): it was probably "
        "trained on labels that were scaled in another way."
    ]


def _reordered(predicted: np.ndarray, labels: np.ndarray, classes: list[str]) -> list[str]:
    """A sentence if the predictions fit the labels with the classes in another order.

    The order is found on one half of the examples and its accuracy is measured on the other.
    """
    order, right = np.empty(0), 0
    halves = [np.arange(len(labels)) % 2 == half for half in (0, 1)]
    for fit, check in (halves, halves[::-1]):
        counts = np.zeros((len(classes), len(classes)))
        np.add.at(counts, (predicted[fit], labels[fit]), 1)
        order = linear_sum_assignment(counts, maximize=True)[1]
        right += int((order[predicted[check]] == labels[check]).sum())
    plain, other = float((predicted == labels).mean()), right / len(labels)
    if other < max(_LEAST, plain + _GAIN):
        return []
    often = np.bincount(predicted, minlength=len(classes))
    moved = max(
        (one for one in range(len(classes)) if order[one] != one),
        key=lambda one: int(often[one]),
    )
    return [
        f"Its classes seem to be in another order than this study's: with the order that fits "
        f"best, its accuracy would be {other:.1%} and not {plain:.1%}. For example, where it says "
        f"{classes[moved]}, the label is mostly {classes[order[moved]]}. Save it with the classes "
        f"in the order {_listed(classes)}."
    ]


def _listed(classes: list[str], most: int = 10) -> str:
    more = f" and {len(classes) - most:,} more" if len(classes) > most else ""
    return ", ".join(classes[:most]) + more
