"""The training examples whose values are nearest to those of a test example, such as its pixels.

They tell copies from causes: what is nearest in its values need not be what a prediction depends
on. And they tell whether a model repeats a training example: Carlini et al. (2023, arXiv
2301.13188) say so where the nearest is at less than half the mean distance of the 50 nearest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.store.rows import ranges
from engine.study.examples import read_stacked_arrays
from engine.study.reader import StudyReader
from engine.study.references import has_references

INPUT = "input"
MOST_BYTES = 2**30
"""More values are not compared: reading them would take seconds."""
COMPARED = 50
MEMORIZED = 0.5
_ROWS = 4096


@dataclass(frozen=True)
class Nearest:
    """The nearest training examples, the nearest first.

    Attributes:
        rows: Up to `COMPARED`.
        distances: Root mean squares of the differences of their values, of which the largest is 1.
    """

    rows: np.ndarray
    distances: np.ndarray

    @property
    def ratio(self) -> float:
        """The distance of the nearest, as a share of the mean of all of them."""
        mean = float(self.distances.mean())
        return float(self.distances[0]) / mean if mean else 0.0

    @property
    def memorized(self) -> bool:
        """Whether the nearest is so much nearer than others that it looks repeated."""
        return self.ratio < MEMORIZED


def nearest_in_values(study: StudyReader, row: int) -> Nearest | None:
    """The training examples nearest to a test example; None where there are too many values, or
    none that can be compared."""
    if has_references(study):  # every picture would have to be decoded
        return None
    tests, training = (read_stacked_arrays(study, split).get(INPUT) for split in ("test", "train"))
    if tests is None or training is None or len(training) <= COMPARED:
        return None
    own = np.asarray(tests[row])
    if own.dtype != np.uint8 or own.size * len(training) > MOST_BYTES:
        return None
    largest, squares = float(np.iinfo(own.dtype).max), np.empty(len(training))
    for some in ranges(range(len(training)), _ROWS):
        block = np.asarray(training[some.start : some.stop], np.float32)
        difference = (block - own).reshape(len(block), -1) / largest
        squares[some.start : some.stop] = np.einsum("ij,ij->i", difference, difference)
    order = np.argsort(squares, kind="stable")[:COMPARED]
    return Nearest(order, np.sqrt(squares[order] / own.size))
