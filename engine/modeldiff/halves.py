"""An algorithm split in two: its scores by a part of its checkpoints, of its subset runs, or both.

The two halves are what `engine.modeldiff.compare` compares to see what chance in training gives.
They differ in what the method's scores rest on: TRAK in checkpoints, a datamodel in subset runs,
the hybrid in both, for a half that kept all of either would be too like the other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine import store
from engine.attribution.scores import DenseScores, Scores
from engine.attribution.sparse import SparseRows, SparseScores
from engine.bank import PARTS, RunBank
from engine.execution import default_workers
from engine.layout import DATAMODEL, HYBRID, ROWS_PER_SHARD, TRAK
from engine.modeldiff.mean_scores import MeanScores, scores_of_checkpoints
from engine.modeldiff.significance import FEWEST_MASKS, MOST_SPLITS, split_checkpoints, split_masks
from engine.search import evenly_spread
from engine.stages.datamodels import MOST_FOR_UNITS
from engine.study import Study

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


def ways_to_halve(study: Study, algorithm: str, a: str, b: str, method: str) -> list[Halved]:
    """How to split an algorithm, A or B itself, where both are compared by one method.

    Returns:
        At most `MOST_SPLITS`; none where there is too little to split, or the method is not ours.
    """
    nothing: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((), ())] * MOST_SPLITS
    checkpoints = masks = nothing
    if method not in RESTS_ON:
        return []
    if method != DATAMODEL:
        count_a, count_b = study.checkpoints(a), study.checkpoints(b)
        smaller = min(count_a, count_b)
        checkpoints = split_checkpoints(study.checkpoints(algorithm), smaller, study.spec.seed)
        if count_a < count_b:
            checkpoints = [(rest, larger) for larger, rest in checkpoints]
    if method != TRAK:
        count_a, count_b = (len(_fitted(study, one)) for one in (a, b))
        held_out = _held_out(_fitted(study, algorithm))
        masks = split_masks(held_out, min(count_a, count_b) / len(held_out), study.spec.seed)
        if count_a < count_b:
            masks = [(rest, larger) for larger, rest in masks]
    return [
        Halved(algorithm, Half(checkpoints_a, masks_a), Half(checkpoints_b, masks_b))
        for (checkpoints_a, checkpoints_b), (masks_a, masks_b) in zip(
            checkpoints, masks, strict=False
        )
    ]


def scores_of(study: Study, algorithm: str, method: str, half: Half) -> MeanScores | Scores:
    """The algorithm's scores by this method, of this half alone; settings stay as chosen by all."""
    return _SCORES[method](study, algorithm, half)


def _trak(study: Study, algorithm: str, half: Half) -> MeanScores | Scores:
    return scores_of_checkpoints(study, algorithm, half.checkpoints)


def _datamodel(study: Study, algorithm: str, half: Half) -> Scores:
    from engine.attribution.datamodels import fit_datamodels

    bank, rows = _fitted(study, algorithm), list(half.masks)
    found = fit_datamodels(
        bank.masks[rows], bank.test[rows], _held_out(bank)[rows], threads=default_workers("cpu")
    )
    return SparseScores(
        [SparseRows(found.indptr, found.indices, found.values)], study.dataset.n_train
    )


def _hybrid(study: Study, algorithm: str, half: Half) -> Scores:
    import torch

    from engine.attribution import prior

    about = store.read_json(study.method_file(algorithm, HYBRID))
    settings = prior.Settings(**{name: about[name] for name in ("ridge", "flat", "noise", "width")})
    bank, rows = _fitted(study, algorithm), list(half.masks)
    masks, outputs = (torch.from_numpy(array[rows]) for array in (bank.masks, bank.test))
    mean = scores_of_checkpoints(study, algorithm, half.checkpoints)
    threshold = store.read_tensors(study.weighting_file(algorithm)).get("threshold")

    def trak(tests: np.ndarray) -> torch.Tensor:
        """The prior, soft-thresholded as the study's own TRAK is."""
        own = None if threshold is None else threshold[tests]
        return torch.from_numpy(DenseScores([mean.rows(tests)], own).rows(np.arange(len(tests))))

    shape = study.dataset.n_test, study.dataset.n_train
    spread = evenly_spread(shape[0], MOST_FOR_UNITS)
    units = prior.output_units(trak(spread), masks, outputs[:, spread], settings.ridge)
    # A file without a name: dense, perhaps larger than memory, and gone with its last reader.
    with tempfile.TemporaryFile(dir=study.root) as file:
        weights = np.memmap(file, np.float32, "w+", shape=shape)
    for tests in np.array_split(np.arange(shape[0]), -(-shape[0] // ROWS_PER_SHARD)):
        found = prior.fit(trak(tests) * units, masks, outputs[:, tests], settings)
        weights[tests] = found.weights.numpy()
    return DenseScores([weights])


_SCORES: dict[str, Callable[[Study, str, Half], MeanScores | Scores]] = {
    TRAK: _trak,
    DATAMODEL: _datamodel,
    HYBRID: _hybrid,
}


def _fitted(study: Study, algorithm: str) -> RunBank:
    """The runs that datamodels are fitted to."""
    return study.bank(algorithm, train=False).part("fit", "validation")


def _held_out(bank: RunBank) -> np.ndarray:
    return np.isin(bank.numbers, bank.part("validation").numbers)
