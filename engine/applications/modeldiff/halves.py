"""Split an algorithm in two: scores from a part of its checkpoints, its subset runs, or both.

`engine.applications.modeldiff.comparison` compares the two halves to measure the differences that
come from chance in training. The halves differ in everything that the method's scores depend on:
checkpoints for TRAK, subset runs for a datamodel, both for the hybrid. Halves that shared either
would be too similar.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine import store
from engine.applications.modeldiff.mean_scores import MeanScores, scores_of_checkpoints
from engine.applications.modeldiff.significance import (
    FEWEST_MASKS,
    MOST_SPLITS,
    split_checkpoints,
    split_masks,
)
from engine.attribution.datamodels.run_bank import RunBank
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.matrix import Scores
from engine.attribution.scores.sparse import SparseScores
from engine.build.stages.datamodels import MOST_FOR_UNITS
from engine.running.processes import default_workers
from engine.store import layout
from engine.store.layout import DATAMODEL, HYBRID, ROWS_PER_SHARD, TRAK
from engine.store.rows import evenly_spread
from engine.store.spec import PARTS
from engine.study.reader import StudyReader
from engine.study.run_banks import read_bank

DEPENDS_ON = {
    TRAK: "checkpoints",
    DATAMODEL: "subset runs",
    HYBRID: "checkpoints and subset runs",
}
"""What the scores of each built-in method depend on, and can be split by."""
NEEDED = {
    TRAK: "three checkpoints",
    DATAMODEL: f"{2 * FEWEST_MASKS * len(PARTS)} masks of subset runs",
    HYBRID: f"three checkpoints and {2 * FEWEST_MASKS * len(PARTS)} masks of subset runs",
}
"""The least that a split needs, by method."""


Splits = list[tuple[tuple[int, ...], tuple[int, ...]]]
"""Pairs of parts: numbers of checkpoints, or rows of masks."""


@dataclass(frozen=True)
class Half:
    """The checkpoints and masks of one half of a split.

    Attributes:
        checkpoints: Numbers of the checkpoints.
        masks: Rows of the bank's fit and validation masks.
    """

    checkpoints: tuple[int, ...] = ()
    masks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Halved:
    """A split of one algorithm, in the proportions of the two algorithms compared.

    Attributes:
        like_a: Represents A: as many checkpoints and masks as A has, if there are enough.
        like_b: Represents B: the rest.
    """

    algorithm: str
    like_a: Half
    like_b: Half


def runs_of(study: StudyReader, algorithm: str, method: str) -> RunBank | None:
    """The runs that an algorithm's scores were fitted to; None if the method needs no runs."""
    if method not in (DATAMODEL, HYBRID):
        return None
    return read_bank(study, algorithm, train=False).part("fit", "validation")


def ways_to_halve(
    study: StudyReader,
    algorithm: str,
    a: str,
    b: str,
    method: str,
    runs: Mapping[str, RunBank | None],
) -> list[Halved]:
    """Ways to split A or B itself, if both are compared by one method.

    Args:
        runs: The results of `runs_of` for A and for B.

    Returns:
        At most `MOST_SPLITS`; none if there is too little to split, or the method is imported.
    """
    if method not in DEPENDS_ON:
        return []
    nothing: Splits = [((), ())] * MOST_SPLITS
    checkpoints = masks = nothing
    if method != DATAMODEL:
        count_a, count_b = study.checkpoints(a), study.checkpoints(b)
        smaller = min(count_a, count_b)
        found = split_checkpoints(study.checkpoints(algorithm), smaller, study.spec.seed)
        checkpoints = _larger_for_larger(found, count_a, count_b)
    own, of_a, of_b = runs[algorithm], runs[a], runs[b]
    if own is not None and of_a is not None and of_b is not None:
        count_a, count_b = len(of_a), len(of_b)
        found = split_masks(own.held_out, min(count_a, count_b) / len(own), study.spec.seed)
        masks = _larger_for_larger(found, count_a, count_b)
    return [
        Halved(algorithm, Half(checkpoints_a, masks_a), Half(checkpoints_b, masks_b))
        for (checkpoints_a, checkpoints_b), (masks_a, masks_b) in zip(
            checkpoints, masks, strict=False
        )
    ]


def _larger_for_larger(splits: Splits, count_a: int, count_b: int) -> Splits:
    """Splits in which the larger part represents the algorithm that has more."""
    return splits if count_a >= count_b else [(rest, larger) for larger, rest in splits]


def scores_of(
    study: StudyReader, algorithm: str, method: str, half: Half, runs: RunBank | None
) -> MeanScores | Scores:
    """The algorithm's scores by this method, from this half only.

    Settings stay as chosen with all the data.

    Args:
        runs: The result of `runs_of`.
    """
    if runs is None:
        return scores_of_checkpoints(study, algorithm, half.checkpoints)
    if method == DATAMODEL:
        return _datamodel(study, half, runs)
    return _hybrid(study, algorithm, half, runs)


def _datamodel(study: StudyReader, half: Half, runs: RunBank) -> Scores:
    from engine.attribution.datamodels.fit import fit_datamodels

    rows, threads = list(half.masks), default_workers("cpu")
    found = fit_datamodels(runs.masks[rows], runs.test[rows], runs.held_out[rows], threads=threads)
    return SparseScores([found.weights])


def _hybrid(study: StudyReader, algorithm: str, half: Half, runs: RunBank) -> Scores:
    import torch

    from engine.attribution.datamodels import hybrid

    about = store.read_json(layout.method_file(study.root, algorithm, HYBRID))
    settings = hybrid.Settings(
        **{name: about[name] for name in ("ridge", "flat", "noise", "width")}
    )
    rows = list(half.masks)
    masks, outputs = (torch.from_numpy(array[rows]) for array in (runs.masks, runs.test))
    mean = scores_of_checkpoints(study, algorithm, half.checkpoints)
    threshold = store.read_tensors(layout.weighting_file(study.root, algorithm)).get("threshold")

    def trak(tests: np.ndarray) -> torch.Tensor:
        """The prior, soft-thresholded like the study's own TRAK."""
        own = None if threshold is None else threshold[tests]
        return torch.from_numpy(DenseScores([mean.rows(tests)], own).rows(np.arange(len(tests))))

    shape = study.dataset.n_test, study.dataset.n_train
    spread = evenly_spread(shape[0], MOST_FOR_UNITS)
    units = hybrid.output_units(trak(spread), masks, outputs[:, spread], settings.ridge)
    # The dense matrix may exceed memory. A nameless file is deleted with its last reader.
    with tempfile.TemporaryFile(dir=study.root) as file:
        weights = np.memmap(file, np.float32, "w+", shape=shape)
    for tests in np.array_split(np.arange(shape[0]), -(-shape[0] // ROWS_PER_SHARD)):
        found = hybrid.fit(trak(tests) * units, masks, outputs[:, tests], settings)
        weights[tests] = found.weights.numpy()
    return DenseScores([weights])
