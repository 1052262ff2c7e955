"""Average the checkpoints' outputs into one prediction per example (`predictions/{split}.parquet`).

Mean probabilities give the predicted class and the confidence; the mean output is the margin.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from engine import store
from engine.attribution.softmax import softmax
from engine.build.run import Run
from engine.build.stages.checkpoints import outputs_fingerprint
from engine.store import layout
from engine.store.layout import SPLITS, Split
from engine.store.records import Progress
from engine.study.reader import StudyReader

CODE = 1
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
    probabilities: np.ndarray | float = 0.0
    margin: np.ndarray | float = 0.0
    for checkpoint in range(total):
        outputs = store.read_tensors(layout.outputs_file(study.root, algorithm, checkpoint, split))
        probabilities = probabilities + softmax(outputs["logits"]) / total
        margin = margin + outputs["output"].astype(np.float64) / total
    assert isinstance(probabilities, np.ndarray)
    predicted = probabilities.argmax(axis=1)
    classes = np.array(study.dataset.classes, dtype=object)[predicted]
    columns = {
        "predicted": pa.array(classes, pa.string()),
        "correct": pa.array(classes == study.table(split)["label"].to_numpy()),
        "confidence": pa.array(probabilities.max(axis=1).astype(np.float32)),
        "margin": pa.array(np.asarray(margin, dtype=np.float32)),
    }
    store.write_table(path, pa.table(columns), fingerprint)
