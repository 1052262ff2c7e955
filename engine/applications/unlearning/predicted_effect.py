"""What forgetting would do to the forgotten examples themselves, before anything is trained.

`predicted_changes` takes models, so it is a job; what it has kept is read here without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine import store
from engine.applications.unlearning.audit import check_scores
from engine.applications.unlearning.bank_changes import Source, check_source
from engine.applications.unlearning.changes import changes_fingerprint, predicted_changes
from engine.applications.unlearning.requests import forget_set, labels_of
from engine.applications.verification import complete
from engine.attribution.softmax import margins
from engine.build.retraining import Removal
from engine.running import processes
from engine.store import layout
from engine.store.layout import HYBRID
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class Foretold:
    """Margins of the forgotten examples, mean over the study's checkpoints.

    Attributes:
        rows: Training rows, ascending int64 `[k]`.
        before: As the checkpoints have them, float64 `[k]`.
        after: As foretold without them, float64 `[k]`.
        calibrated: Whether subset runs gave the changes their unit.
    """

    rows: np.ndarray
    before: np.ndarray
    after: np.ndarray
    calibrated: bool


def foretold(
    study: StudyReader, algorithm: str, removed: Removal, source: Source = "trak"
) -> Foretold | None:
    """What the job has foretold of this forget set; None until it has."""
    fingerprint = changes_fingerprint(study, removed, removed, algorithm, source)
    path = layout.logit_changes_file(study.root, algorithm, fingerprint)
    if not path.exists():
        return None
    change = store.read_tensors(path, fingerprint)["forget_change"]
    rows = np.array(removed, np.int64)
    labels, total = labels_of(study, rows), study.checkpoints(algorithm)
    ends = np.zeros((2, len(rows)))
    for checkpoint in range(total):
        outputs = store.read_tensors(
            layout.outputs_file(study.root, algorithm, checkpoint, "train")
        )
        logits = outputs["logits"][rows]
        ends += [margins(logits, labels) / total, margins(logits + change, labels) / total]
    calibrated = layout.method_file(study.root, algorithm, HYBRID).exists()
    return Foretold(rows, ends[0], ends[1], calibrated)


def check_job(study: StudyReader, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `run_job`, complete and checked. Raises as `predicted_changes`."""
    defaults: dict[str, Any] = {"forget": [], "algorithm": None}
    defaults |= {"source": "trak", "device": "auto"}
    asked = complete(defaults, parameters)
    algorithm = resolve_algorithm(study, asked["algorithm"])
    check_scores(study, algorithm)
    check_source(study, algorithm, asked["source"])
    return asked | {"forget": list(forget_set(study, asked["forget"])), "algorithm": algorithm}


def run_job(
    study: StudyReader, parameters: Mapping[str, Any], report: Callable[[int, int, str], None]
) -> dict[str, Any]:
    """A job of the queue: foretell, and keep it."""
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
