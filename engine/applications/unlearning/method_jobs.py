"""The unlearning jobs of a method, and the changes of outputs that the method learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from engine import store
from engine.applications.unlearning.cost import retraining_cost
from engine.applications.unlearning.oracles import oracle_outputs, oracles_fingerprint, rows_for
from engine.applications.unlearning.output_changes import predicted_changes
from engine.applications.unlearning.outputs import AuditedOutputs, read_outputs
from engine.applications.unlearning.rows import rows_of
from engine.applications.unlearning.settings import BUDGET, UNCHANGED, Hyper
from engine.applications.unlearning.sources import Source
from engine.applications.unlearning.unlearned import Unlearning, unlearned_file
from engine.build.retraining import Removal
from engine.store import layout
from engine.study.reader import StudyReader


def method_job(
    study: StudyReader,
    algorithm: str,
    forget: Removal,
    removed: Removal,
    method: str,
    budget: float,
    device: str,
    models: int,
    source: Source = "trak",
) -> Unlearning:
    """The job of a method at original 0, with default hyper-parameters.

    Args:
        removed: What is unlearned: the forget set, or its validation set.
        models: Number of oracles that the method `oracle` learns from. These oracles and the
            results of `unchanged_originals` must already be in the store.
    """
    changes = None
    if method == "matching":
        changes = predicted_changes(study, forget, removed, algorithm, device, source).path
    elif method == "oracle":
        changes = _actual_changes(study, algorithm, forget, removed, models, device)
    gradients = 0 if method == UNCHANGED else round(budget * retraining_cost(study, algorithm))
    return Unlearning(
        study.root, algorithm, forget, removed, method, Hyper(), changes, gradients, 0, device
    )


def unchanged_originals(
    study: StudyReader, algorithm: str, forget: Removal, removed: Removal, models: int, device: str
) -> list[Unlearning]:
    """Jobs that store the outputs of the first originals, unchanged."""
    job = method_job(study, algorithm, forget, removed, UNCHANGED, BUDGET, device, models)
    return [replace(job, seed=seed) for seed in range(models)]


def original_outputs(
    study: StudyReader, algorithm: str, forget: Removal, removed: Removal, models: int, device: str
) -> AuditedOutputs:
    """Outputs of the first originals, once the jobs of `unchanged_originals` are done."""
    jobs = unchanged_originals(study, algorithm, forget, removed, models, device)
    files = [unlearned_file(study, job) for job in jobs]
    return read_outputs(study, files, rows_for(study, forget, removed))


def _actual_changes(
    study: StudyReader, algorithm: str, forget: Removal, removed: Removal, models: int, device: str
) -> Path:
    """File with the actual changes of what is matched: the oracles' mean minus the originals'."""
    fingerprint = store.fingerprint_of(
        "real changes", oracles_fingerprint(study, algorithm, forget, removed), models
    )
    path = layout.logit_changes_file(study.root, algorithm, fingerprint)
    if not path.exists():
        after = oracle_outputs(study, algorithm, forget, removed, models)
        before = original_outputs(study, algorithm, forget, removed, models, device)
        parts = {"forget": np.array(removed, np.int64), "retain": rows_of(study, forget).learned}
        changes = {
            f"{name}_change": after.of(part).matched.mean(axis=0)
            - before.of(part).matched.mean(axis=0)
            for name, part in parts.items()
        }
        store.write_tensors(path, changes, fingerprint)
    return path
