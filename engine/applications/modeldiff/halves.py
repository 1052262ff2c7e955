"""An algorithm split in two: its scores by a part of its checkpoints, of its subset runs, or both.

The two halves are compared (`engine.applications.modeldiff.comparison`) to see how different two
equal algorithms look by chance in training. They differ in what the method's scores depend on:
TRAK on checkpoints, a datamodel on subset runs, the hybrid on both, because a half that kept all of
either would be too similar to the other.
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

RESTS_ON = {
    TRAK: "checkpoints",
    DATAMODEL: "subset runs",
    HYBRID: "checkpoints and subset runs",
}
"""What the scores of each method of ours can be split by."""
NEEDED = {
    TRAK: "three checkpoints",
    DATAMODEL: f"{2 * FEWEST_MASKS * len(PARTS)} masks of subset runs",
    HYBRID: f"three checkpoints and {2 * FEWEST_MASKS * len(PARTS)} masks of subset runs",
}
"""How much of it, at least."""


Splits = list[tuple[tuple[int, ...], tuple[int, ...]]]
"""Pairs of parts, of checkpoints or of rows of masks."""


@dataclass(frozen=True)
class Half:
    """A part of what an algorithm's scores rest on.

    Attributes:
        checkpoints: Their numbers.
        masks: Rows of the bank's fit and validation masks.
    """

    checkpoints: tuple[int, ...] = ()
    masks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Halved:
    """A way to split an algorithm in two, as lopsided as two algorithms that are compared.

    Attributes:
        like_a: As much as the scores of A rest on, as far as there is enough to split.
        like_b: The rest, which stands for B.
    """

    algorithm: str
    like_a: Half
    like_b: Half


def runs_of(study: StudyReader, algorithm: str, method: str) -> RunBank | None:
    """The runs that an algorithm's scores were fitted to; None where they rest on none."""
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
    """How to split an algorithm, A or B itself, where both are compared by one method.

    Args:
        runs: What `runs_of` gives, of A and of B.

    Returns:
        At most `MOST_SPLITS`; none where there is too little to split, or the method is not ours.
    """
    if method not in RESTS_ON:
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
    """Splits whose larger part comes first, so that it stands for what rests on more."""
    return splits if count_a >= count_b else [(rest, larger) for larger, rest in splits]


def scores_of(
    study: StudyReader, algorithm: str, method: str, half: Half, runs: RunBank | None
) -> MeanScores | Scores:
    """The algorithm's scores by this method, of this half alone; settings stay as chosen by all.

    Args:
        runs: What `runs_of` gives.
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
        """The prior, soft-thresholded as the study's own TRAK is."""
        own = None if threshold is None else threshold[tests]
        return torch.from_numpy(DenseScores([mean.rows(tests)], own).rows(np.arange(len(tests))))

    shape = study.dataset.n_test, study.dataset.n_train
    spread = evenly_spread(shape[0], MOST_FOR_UNITS)
    units = hybrid.output_units(trak(spread), masks, outputs[:, spread], settings.ridge)
    # A file without a name: dense, perhaps larger than memory, and gone with its last reader.
    with tempfile.TemporaryFile(dir=study.root) as file:
        weights = np.memmap(file, np.float32, "w+", shape=shape)
    for tests in np.array_split(np.arange(shape[0]), -(-shape[0] // ROWS_PER_SHARD)):
        found = hybrid.fit(trak(tests) * units, masks, outputs[:, tests], settings)
        weights[tests] = found.weights.numpy()
    return DenseScores([weights])
