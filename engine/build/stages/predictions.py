"""Average the checkpoints' outputs into one prediction per example (`predictions/{split}.parquet`).

Class, confidence and margin all follow from the mean logits (engine.attribution.ensemble).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from engine import store
from engine.attribution.softmax import margins, softmax
from engine.build.run import Run
from engine.build.stages.checkpoints import outputs_fingerprint
from engine.store import layout
from engine.store.layout import SPLITS, Split
from engine.store.records import Progress
from engine.study.models import read_class_numbers, read_mean_logits
from engine.study.reader import StudyReader

CODE = 2
"""Increment when the same outputs would be averaged differently."""


def run(run: Run, algorithm: str) -> None:
    """Average the checkpoints' outputs on both splits where that is not done yet."""
    for split in SPLITS:
        _average(run.study, algorithm, split)
    run.report(Progress("predictions", algorithm, 1, 1))


def _average(study: StudyReader, algorithm: str, split: Split) -> None:
    total = study.checkpoints(algorithm)
    path = layout.predictions_file(study.root, algorithm, split)
    fingerprint = store.fingerprint_of(
        "predictions", CODE, [outputs_fingerprint(study, algorithm, m) for m in range(total)]
    )
    if path.exists():
        store.read_table(path, fingerprint, columns=[])
        return
    logits = read_mean_logits(study, split, algorithm)
    labels = read_class_numbers(study, split)
    predicted = logits.argmax(axis=1)
    columns = {
        "predicted": pa.array(np.array(study.dataset.classes, object)[predicted], pa.string()),
        "correct": pa.array(predicted == labels),
        "confidence": pa.array(softmax(logits).max(axis=1).astype(np.float32)),
        "margin": pa.array(margins(logits, labels).astype(np.float32)),
    }
    store.write_table(path, pa.table(columns), fingerprint)
