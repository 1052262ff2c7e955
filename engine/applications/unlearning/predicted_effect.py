"""Predicted margins of the forgotten examples, before anything is trained.

Computing them needs the models, so it is a job. Reading them needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine import store
from engine.applications.unlearning.checks import check_scores
from engine.applications.unlearning.output_changes import changes_fingerprint, predicted_changes
from engine.applications.unlearning.rows import forget_set, matched_of, own_of
from engine.applications.unlearning.sources import Source, check_source
from engine.build.retraining import Removal
from engine.running import processes
from engine.running.jobs.parameters import complete
from engine.running.progress import Report
from engine.store import layout
from engine.store.layout import HYBRID
from engine.study.models import read_mean_records
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class PredictedMargins:
    """Margins of the forgotten examples, mean over the study's checkpoints.

    Attributes:
        rows: Training rows, ascending int64 `[k]`.
        before: Margins with all data, float64 `[k]`.
        after: Margins predicted for models trained without them, float64 `[k]`.
        calibrated: Whether the changes are in units of the output, calibrated by subset runs.
    """

    rows: np.ndarray
    before: np.ndarray
    after: np.ndarray
    calibrated: bool


def read_predicted_margins(
    study: StudyReader, algorithm: str, removed: Removal, source: Source = "trak"
) -> PredictedMargins | None:
    """The predictions for this forget set; None before the job has run."""
    fingerprint = changes_fingerprint(study, removed, removed, algorithm, source)
    path = layout.logit_changes_file(study.root, algorithm, fingerprint)
    if not path.exists():
        return None
    change = store.read_tensors(path, fingerprint)["forget_change"]
    rows = np.array(removed, np.int64)
    records = read_mean_records(study, "train", algorithm, rows)
    before, after = matched_of(study).changed(records, change, own_of(study, rows))
    calibrated = layout.method_file(study.root, algorithm, HYBRID).exists()
    return PredictedMargins(rows, before, after, calibrated)


def check_job(study: StudyReader, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `run_job`, complete and checked. Raises as `predicted_changes`."""
    defaults: dict[str, Any] = {"forget": [], "algorithm": None}
    defaults |= {"source": "trak", "device": "auto"}
    request = complete(defaults, parameters)
    algorithm = resolve_algorithm(study, request["algorithm"])
    check_scores(study, algorithm)
    check_source(study, algorithm, request["source"])
    return request | {"forget": list(forget_set(study, request["forget"])), "algorithm": algorithm}


def run_job(study: StudyReader, parameters: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Run as a job of the queue: make the predictions and keep them."""
    removed = tuple(parameters["forget"])
    predicted_changes(
        study,
        removed,
        removed,
        parameters["algorithm"],
        processes.pick_device(parameters["device"]),
        parameters["source"],
        lambda done, total: report(done, total, "checkpoints"),
    )
    return {"forget": len(removed)}
