"""What models make from the same seeds, trained with all data and without a removal set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine import store
from engine.applications.verification.record import Verification
from engine.build.retraining import MADE, NOTHING, model_file
from engine.study.reader import StudyReader
from engine.study.trajectories import read_making


@dataclass(frozen=True)
class MadeWithout:
    """Examples made from the same noise by pairs of models, each trained with the same seed.

    Attributes:
        seeds: Of the examples, int64 `[n]`.
        with_all, without: uint8 `[models, n, channels, height, width]`.
    """

    seeds: np.ndarray
    with_all: np.ndarray
    without: np.ndarray

    @property
    def change(self) -> np.ndarray:
        """How far each example moved: the root mean square over its values, of at most 1, on
        average over the models, `[n]`."""
        moved = (self.without.astype(np.float64) - self.with_all) / 255
        found: np.ndarray = np.sqrt(np.square(moved).mean(axis=(2, 3, 4))).mean(axis=0)
        return found


def read_made(study: StudyReader, one: Verification) -> MadeWithout | None:
    """What the models of a verification make; None where they make nothing, or nothing is kept."""
    making = read_making(study)
    if making is None:
        return None
    sides: list[np.ndarray] = []
    for removed in (NOTHING, tuple(one.removed)):
        files = [model_file(study, one.algorithm, removed, seed) for seed in range(one.seeds)]
        if not all(file.exists() for file in files):
            return None
        found = [store.read_tensors(file).get(MADE) for file in files]
        kept = [made for made in found if made is not None]
        if len(kept) < len(files):
            return None
        sides.append(np.stack(kept))
    return MadeWithout(making.seeds, *sides)
