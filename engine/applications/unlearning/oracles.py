"""Originals and oracles: the models that an audit compares.

Originals are models trained with all data: the study's checkpoints, and more if there are too few.
Oracles are trained without the forget set. Both are in the study's store of retrained models
(`engine.build.retraining`), and an oracle never has the seed of an original.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine import store
from engine.applications.unlearning.outputs import AuditedOutputs, read_outputs
from engine.applications.unlearning.rows import rows_of
from engine.build.retraining import (
    FIRST_ORACLE,
    NOTHING,
    Removal,
    RetrainedModel,
    model_file,
    retrained_fingerprint,
)
from engine.study.reader import StudyReader

CODE = 2
"""Increment when oracles of the same forget set would have different outputs."""


def originals(models: int) -> list[RetrainedModel]:
    """The first originals. They keep their weights, to unlearn from."""
    return [RetrainedModel(NOTHING, seed, weights=True) for seed in range(models)]


def oracles(
    study: StudyReader, forget: Removal, removed: Removal, models: int
) -> list[RetrainedModel]:
    """The first models trained without `removed`: the forget set, or its validation set."""
    rows = tuple(rows_for(study, forget, removed).tolist())
    return [RetrainedModel(removed, FIRST_ORACLE + number, rows) for number in range(models)]


def oracle_file(study: StudyReader, algorithm: str, removed: Removal, number: int) -> Path:
    """Shard of oracle `number`, from 0."""
    return model_file(study, algorithm, removed, FIRST_ORACLE + number)


def oracle_outputs(
    study: StudyReader, algorithm: str, forget: Removal, removed: Removal, models: int
) -> AuditedOutputs:
    """Outputs of the first oracles. Raises StoreError if one is missing or broken."""
    files = [oracle_file(study, algorithm, removed, number) for number in range(models)]
    return read_outputs(study, files, rows_for(study, forget, removed))


def rows_for(study: StudyReader, forget: Removal, removed: Removal) -> np.ndarray:
    """Training rows whose outputs the models without `removed` keep, ascending int64."""
    return np.union1d(rows_of(study, forget).all, np.array(removed, np.int64))


def oracles_fingerprint(
    study: StudyReader, algorithm: str, forget: Removal, removed: Removal
) -> str:
    """Fingerprint of the oracles without `removed`, and of the rows whose outputs are kept."""
    rows = rows_for(study, forget, removed).tolist()
    return store.fingerprint_of(
        "oracle", CODE, retrained_fingerprint(study, algorithm, removed), rows
    )
