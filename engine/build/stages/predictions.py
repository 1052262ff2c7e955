"""Average the checkpoints' outputs into one prediction per example (`predictions/{split}.parquet`).

Everything follows from the mean of the checkpoints' records (engine.attribution.ensemble).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from engine import store
from engine.build.run import Run
from engine.build.stages.checkpoints import outputs_fingerprint
from engine.build.tasks import task_of
from engine.store import layout
from engine.store.layout import ROWS_PER_SHARD, SPLITS, Split
from engine.store.records import Progress
from engine.study.examples import read_arrays
from engine.study.models import read_mean_records
from engine.study.reader import StudyReader

CODE = 3
"""Increment when the same outputs would be averaged differently."""
VOTE_CODE = 4
"""The same, where checkpoints vote on the text that is predicted."""


def run(run: Run, algorithm: str) -> None:
    """Average the checkpoints' outputs on both splits where that is not done yet."""
    for split in SPLITS:
        _average(run.study, algorithm, split)
    run.report(Progress("predictions", algorithm, 1, 1))


def _average(study: StudyReader, algorithm: str, split: Split) -> None:
    total = study.checkpoints(algorithm)
    path = layout.predictions_file(study.root, algorithm, split)
    code = VOTE_CODE if study.dataset.outcomes == "exact" else CODE
    fingerprint = store.fingerprint_of(
        "predictions", code, [outputs_fingerprint(study, algorithm, m) for m in range(total)]
    )
    if path.exists():
        store.read_table(path, fingerprint, columns=[])
        return
    task, dataset = task_of(study), study.dataset
    parts = []
    for shard, arrays in enumerate(read_arrays(study, split)):
        rows = slice(shard * ROWS_PER_SHARD, (shard + 1) * ROWS_PER_SHARD)
        records = read_mean_records(study, split, algorithm, rows)
        columns = task.predictions(records, arrays, dataset.classes, dataset.encoding)
        columns.setdefault("output", records["output"].astype(np.float32))
        parts.append(pa.table(dict(columns)))
    table = pa.concat_tables(parts, promote_options="permissive").combine_chunks()
    store.write_table(path, table, fingerprint)
