"""The quantities that people read: each has one name, one unit and one rounding.

Pages, the terminal and reports write a quantity by its `text`, and nothing else formats one. Files
for programs (CSV, JSON, Parquet) hold the unrounded numbers, which `text` rounds to what people
read. tests/dashboard/test_contract_of_quantities.py compares all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

MOST_DIGITS = 9
"""Significant digits that a change is written with at most, until its two ends differ."""


class Interval(Protocol):
    """A mean with the ends of its interval."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


@dataclass(frozen=True)
class Quantity:
    """One quantity.

    Attributes:
        name: For people; `{}` stands for the name of the model output.
        unit: What a value of 1 is; `{}` as in `name`, and empty for a number without a unit.
        rounding: (value, digits) → text.
        digits: How many are written: significant ones or decimals, as `rounding` takes it.
    """

    name: str
    unit: str
    rounding: Callable[[float, int], str]
    digits: int

    def text(self, value: float) -> str:
        """A value as people read it, without its unit."""
        return self.rounding(float(value), self.digits)

    def interval(self, measured: Interval) -> str:
        """A value with its interval: `0.312 (0.290 to 0.334)`."""
        return self.within(measured.mean, measured.low, measured.high)

    def within(self, mean: float, low: float, high: float) -> str:
        """`interval` of three numbers."""
        return f"{self.text(mean)} ({self.range(low, high)})"

    def range(self, low: float, high: float) -> str:
        """The ends of an interval, to the last digit of the larger: `−0.009 to +0.295`."""
        return " to ".join(
            self.rounding(end, self._digits_within(end, low, high)) for end in (low, high)
        )

    def _digits_within(self, value: float, low: float, high: float) -> int:
        """Digits of one end of an interval."""
        largest = max(abs(low), abs(high))
        if self.rounding not in (_signed, _significant) or not value or not math.isfinite(largest):
            return self.digits
        return max(1, self.digits - _exponent(largest) + _exponent(value))

    def change(self, before: float, after: float) -> str:
        """Two values with an arrow, in so many digits that they differ unless they are equal."""
        for digits in range(self.digits, MOST_DIGITS + 1):
            ends = [self.rounding(float(end), digits) for end in (before, after)]
            if ends[0] != ends[1] or before == after:
                break
        return " → ".join(ends)

    def title(self, output: str = "") -> str:
        """Its name and its unit: `influence (margin)`, `score (no unit)`.

        Args:
            output: Name of the model output.
        """
        name, unit = self.name.format(output), self.unit.format(output)
        return f"{name} ({unit or 'no unit'})"


def _exponent(value: float) -> int:
    """Power of ten of a number's first digit."""
    return math.floor(math.log10(abs(value)))


def _significant(value: float, digits: int) -> str:
    """Significant digits; whole digits are never rounded away below a million."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    scientific = f"{value:.{digits - 1}e}"
    exponent = int(scientific.partition("e")[2])
    if not -5 < exponent < 6:
        return scientific.replace("-", "−")
    return f"{value:.{max(0, digits - 1 - exponent)}f}".replace("-", "−")


def _signed(value: float, digits: int) -> str:
    return ("+" if value > 0 else "") + _significant(value, digits)


def _decimals(value: float, digits: int) -> str:
    return f"{value:z.{digits}f}".replace("-", "−")


def _signed_decimals(value: float, digits: int) -> str:
    text = _decimals(value, digits)
    return f"+{text}" if float(text.replace("−", "-")) > 0 else text


def _general(value: float, digits: int) -> str:
    return f"{value:.{digits}g}".replace("-", "−")


def _percent(value: float, digits: int) -> str:
    """Percent; only what is none and what is all is written so."""
    least = 10.0**-digits
    if 0 < value * 100 < least / 2:
        return f"<{least:.{digits}f}%"
    if 0 < (1 - value) * 100 < least / 2:
        return f">{100 - least:.{digits}f}%"
    return f"{value:.{digits}%}".replace("-", "−")


def _whole(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _predicted(value: float, digits: int) -> str:
    """As labels are written in files of data: a plain minus, no zeros at the end."""
    return f"{value:.{digits}g}"


SCORE = Quantity("score", "", _signed, 3)
"""An entry of a method's score matrix. Comparable within one prediction only."""
INFLUENCE = Quantity("influence", "{}", _signed, 3)
"""What a training example adds to a model output: its calibrated score, in the output's unit."""
TOTAL_INFLUENCE = Quantity("total influence", "{}", _significant, 3)
"""Sum of the sizes of a training example's influences on all test predictions."""
NET_INFLUENCE = Quantity("net influence", "{}", _signed, 3)
"""Sum of a training example's influences on all test predictions: below 0 where it hurts."""
SELF_INFLUENCE = Quantity("self-influence", "{}", _signed, 3)
"""What training on an example adds to its own output: mean of the subset runs with it minus mean of
those without."""
SUSPICION = Quantity("label suspicion", "share of the test labels", _percent, 1)
"""Share of the test labels that look less wrong than this training label."""
LABEL_MARGIN = Quantity("margin of the label", "log-odds", _signed, 3)
"""Of a training label, by models that did not see it; where there are none, by the checkpoints."""
LABEL_LOG_ODDS = Quantity("log-odds of the label", "log-odds", _signed, 3)
"""Of a training label, by its margin and its nearest training examples: they rank the labels."""
DISAGREEMENT = Quantity("neighbors that disagree", "share of the nearest", _percent, 0)
"""Share of the nearest training examples with another label."""
OUTPUT = Quantity("{}", "{}", _signed, 3)
"""The model output, such as the margin, log p/(1 − p), in the mean logits of the checkpoints."""
SMOOTHNESS = Quantity("smoothness of training", "", _decimals, 2)
"""Agreement of two steps of weights toward a removal: 1 is smooth, 0 is not."""
CHANGE = Quantity("change of the {}", "{}", _signed, 3)
"""What a removal does to a model output: after minus before."""
EFFECT_RATIO = Quantity("effect of removing a set", "times", _decimals, 2)
"""How many times as much removing one set does as removing another."""
LOGIT_GAP = Quantity("logit gap", "logits", _signed, 3)
"""Logit of the true label minus the largest other: 0 is where the predicted class changes."""
PREDICTED = Quantity("predicted", "the label's", _predicted, 6)
"""A predicted number."""
DENOISING_ERROR = Quantity("loss", "mean squared, at all timesteps", _significant, 3)
"""What models are off by where they take noise away; nothing is predicted of a label."""
ERROR = Quantity("error", "the label's", _signed, 3)
"""Predicted number minus label."""
SIZE = Quantity("size", "the label's", _significant, 3)
"""The size of an error, without its sign."""
CONFIDENCE = Quantity("confidence", "probability", _percent, 1)
"""Probability of the predicted class, in the mean logits of the checkpoints."""
PROBABILITY = Quantity("probability", "probability", _percent, 1)
"""Probability of a class, in the mean logits of the checkpoints."""
FLIP = Quantity("probability of a flip", "probability", _percent, 0)
"""Probability that models retrained without some examples together predict another class."""
ACCURACY = Quantity("accuracy", "share of the examples", _percent, 1)
SHARE = Quantity("share", "share", _percent, 0)
"""A part of a whole: models that flip, influence of one sign, variance that is explained."""
LDS = Quantity("LDS", "rank correlation", _decimals, 3)
"""Linear datamodeling score, and its noise ceiling."""
KLOM = Quantity("KLoM", "nats", _decimals, 2)
EFFECT = Quantity("average effect on p", "probability", _signed_decimals, 3)
"""Mean change of the true label's probability under a transformation."""
COORDINATE = Quantity("coordinate", "", _signed, 3)
"""Of an example along a distinguishing direction."""
P_VALUE = Quantity("p", "probability under chance", _general, 2)
SIMILARITY = Quantity("similarity", "cosine", _decimals, 3)
FEATURE_DISTANCE = Quantity("distance of features", "1 − cosine", _significant, 2)
DISTANCE = Quantity("distance", "root mean square, at most 1", _significant, 2)
"""Of the differences of two pictures' values."""
CAPTION_RANK = Quantity("rank of the caption", "", _whole, 0)
"""Of the own caption among those that the picture finds, from 1."""
PICTURE_RANK = Quantity("rank of the picture", "", _whole, 0)
"""Of the own picture among those that the caption finds, from 1."""
BM25 = Quantity("shared words", "BM25", _significant, 3)
CORRELATION = Quantity("correlation", "correlation", _decimals, 3)
SLOPE = Quantity("slope", "{} per unit of score", _significant, 3)
"""Actual change for a predicted change of 1."""


MEASURES = {
    "similarity": SIMILARITY,
    "caption_rank": CAPTION_RANK,
    "picture_rank": PICTURE_RANK,
}
"""Columns of predictions that some tasks give beside the output."""


PREDICTIONS = {"prediction": PREDICTED, "denoising-error": DENOISING_ERROR}
"""What a number in the column `predicted` can be (`engine.store.records.Dataset.predicted`)."""


def predicted_text(predicted: Any, kind: str = "prediction") -> str:
    """What is predicted, as people read it: a class as it is, a number by one of `PREDICTIONS`."""
    return predicted if isinstance(predicted, str) else PREDICTIONS[kind].text(predicted)


def prediction_words(predicted: Any, kind: str) -> str:
    """`predicted Coat`, `predicted 1.5`, or `error 0.13`."""
    return f"{PREDICTIONS[kind].name} {predicted_text(predicted, kind)}"


def numbers_mean(output: str, method: str, calibrated: bool) -> str:
    """What the numbers beside training examples are: quantity, unit and method, one sentence."""
    if calibrated:
        return f"Numbers: influence on the {output}, in its unit, by {method}."
    return f"Numbers: scores by {method}, uncalibrated and without a unit."
