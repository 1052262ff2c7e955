"""How the influence on one test example changes over several outputs, such as ranges of timesteps.

One request, so that a kept worker can answer it. Importing this module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.applications.live.loading import load, output_of
from engine.study.examples import read_stacked_arrays
from engine.study.group_sums import GroupSums, sums_by_group
from engine.study.output_names import resolve_output


@dataclass(frozen=True)
class AlongQuery:
    """What is asked.

    Attributes:
        root: The study's folder.
        row: Of the test example.
        outputs: Names of outputs that are the same for every example.
        trains: Training rows whose scores are wanted.
    """

    root: Path
    algorithm: str
    row: int
    outputs: tuple[str, ...]
    trains: tuple[int, ...]


@dataclass(frozen=True)
class Along:
    """What is answered.

    Attributes:
        scores: `[outputs, trains]`.
        spread: Root mean square of the scores of all training examples, `[outputs]`.
        by_group: Of each output: column of the training examples → the shares of its groups.
    """

    scores: np.ndarray
    spread: np.ndarray
    by_group: list[dict[str, GroupSums]]


def answer(query: AlongQuery) -> Along:
    """Worker: score the example by every output.

    Raises:
        DataloupeError: The study keeps nothing for live queries, or has no such output.
    """
    loaded = load(query.root, query.algorithm)
    study, row = loaded.study, query.row
    every = read_stacked_arrays(study, "test")
    arrays = {name: np.array(array[row : row + 1]) for name, array in every.items()}
    outputs = [output_of(study, resolve_output(study, name)) for name in query.outputs]
    scores = loaded.thresholded(loaded.unthresholded(arrays, outputs))
    return Along(
        scores[:, list(query.trains)],
        np.sqrt(np.square(scores, dtype=np.float64).mean(axis=1)),
        [sums_by_group(study, one) for one in scores],
    )
