"""What the models of an audit make from the same seeds: before unlearning, after it, and retrained.

Distances are of the features that the study's first checkpoint gives pictures. What a picture looks
like is the class that most of the nearest training pictures have, pixel by pixel: features know the
class that a picture was made by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from engine import store
from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.before_after import before_after_files
from engine.build.retraining import MADE, MADE_FEATURES
from engine.store.rows import evenly_spread
from engine.study.examples import read_columns, read_stacked_arrays
from engine.study.reader import StudyReader
from engine.study.trajectories import read_making

Side = Literal["before", "unlearned", "retrained"]
SIDES: tuple[Side, ...] = ("before", "unlearned", "retrained")
CLASS = "class"
"""Column of the classes that pictures are made by."""
_COMPARED = 4000
"""Training pictures among which the nearest are looked for."""
_NEAREST = 5


@dataclass(frozen=True)
class MadeByAudit:
    """Examples made from the same noise by the models of an audit.

    Attributes:
        seeds: int64 `[n]`.
        classes: The class that each seed's example was made by; empty without classes.
        pictures: uint8 `[models, n, channels, height, width]` of each side.
        distances: Cosine distance of each seed's features from those of the retrained models, mean
            over pairs of models, float64 `[n]`; of retrained ones from each other.
        looks: Class → share of a side's examples that look like it; empty without classes.
    """

    seeds: np.ndarray
    classes: tuple[str, ...]
    pictures: Mapping[Side, np.ndarray]
    distances: Mapping[Side, np.ndarray]
    looks: Mapping[Side, Mapping[str, float]]


def read_made_by_audit(study: StudyReader, audit: Audit, method: str) -> MadeByAudit | None:
    """Read them; None where models make nothing, or an earlier audit did not keep it.

    Raises:
        KeyError: The audit does not include this method.
        StoreError: A model's shard is missing or broken.
    """
    making = read_making(study)
    if making is None:
        return None
    pictures: dict[Side, np.ndarray] = {}
    features: dict[Side, np.ndarray] = {}
    for side, files in zip(SIDES, before_after_files(study, audit, method), strict=True):
        shards = [_read(file) for file in files]
        found = [shard for shard in shards if shard is not None]
        if len(found) < len(shards):
            return None
        pictures[side] = np.stack([shard[0] for shard in found])
        features[side] = np.stack([shard[1] for shard in found])
    distances = {side: _distances(features[side], features["retrained"]) for side in SIDES}
    if CLASS not in study.table("test"):
        return MadeByAudit(making.seeds, (), pictures, distances, {})
    rows = read_columns(study, "test", [CLASS])[CLASS].to_pylist()[: len(making.seeds)]
    classes = tuple(map(str, rows))
    return MadeByAudit(making.seeds, classes, pictures, distances, _looks(study, pictures))


def _read(file: Path) -> tuple[np.ndarray, np.ndarray] | None:
    shard = store.read_tensors(file, file.parent.name)
    if MADE_FEATURES not in shard:
        return None
    return shard[MADE], shard[MADE_FEATURES]


def _distances(features: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Mean over pairs of a model and a retrained model, other than itself, `[n]`."""
    units = [
        one / np.linalg.norm(one, axis=-1, keepdims=True).clip(1e-12)
        for one in (features.astype(np.float64), retrained.astype(np.float64))
    ]
    cosines = np.einsum("and,bnd->nab", *units)
    if features is retrained:
        other = ~np.eye(len(retrained), dtype=bool)
        return 1 - cosines[:, other].mean(axis=1)  # type: ignore[no-any-return]
    return 1 - cosines.mean(axis=(1, 2))  # type: ignore[no-any-return]


def _looks(study: StudyReader, pictures: Mapping[Side, np.ndarray]) -> dict[Side, dict[str, float]]:
    rows = evenly_spread(study.dataset.n_train, _COMPARED)
    known = np.asarray(read_stacked_arrays(study, "train")["input"][rows], np.float32)
    known = known.reshape(len(known), -1)
    names = read_columns(study, "train", [CLASS])[CLASS].take(rows).to_pylist()
    all_names = sorted(set(names))
    numbers = np.array([all_names.index(name) for name in names])
    found: dict[Side, dict[str, float]] = {}
    for side, made in pictures.items():
        own = made.reshape(-1, known.shape[1]).astype(np.float32)
        far = np.square(known).sum(1) - 2 * own @ known.T
        nearest = np.argpartition(far, min(_NEAREST, len(known) - 1), axis=1)[:, :_NEAREST]
        votes = np.stack([(numbers[nearest] == c).sum(1) for c in range(len(all_names))], 1)
        shares = np.bincount(votes.argmax(1), minlength=len(all_names)) / len(own)
        found[side] = dict(zip(all_names, map(float, shares), strict=True))
    return found
