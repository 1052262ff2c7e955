"""The brittle predictions as a table, and as files for other tools.

One row per test example. `COLUMNS` lists every column with its type; unknown values are missing.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine import store
from engine.applications.brittle.data_issues import DataIssue
from engine.applications.brittle.gaps import best_wrong_answers, outcomes_of, own_answers
from engine.applications.brittle.supports import Supports, verified
from engine.applications.verification import Verification
from engine.store.errors import DataloupeError
from engine.store.text import harmless
from engine.study.examples import FILE, read_texts_of
from engine.study.models import read_predictions
from engine.study.reader import StudyReader
from engine.study.tags import TagsAndNotes

Format = Literal["csv", "json", "parquet"]
Status = Literal["predicted", "verified", "refuted", "not within"]
"""Predicted to flip; retrained, most models flip; retrained, most do not; not predicted to flip."""
STATUSES: tuple[Status, ...] = ("predicted", "verified", "refuted", "not within")

_TEXTS = pa.list_(pa.string())
COLUMNS = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("file", pa.string()),  # of a picture, below the source; missing where there is none
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("other", pa.string()),  # the answer after a flip: the best wrong one, or the right one
        ("correct", pa.bool_()),
        ("confidence", pa.float64()),
        ("margin", pa.float64()),
        ("logit_gap", pa.float64()),  # logit of the true label minus the largest other
        ("logit_gap_low", pa.float64()),  # 95 % interval over the checkpoints
        ("logit_gap_high", pa.float64()),
        ("support", pa.int64()),  # size of the removal set; missing: more than K
        ("removal_rows", pa.list_(pa.int64())),  # strongest first
        ("removal_ids", _TEXTS),
        ("removal_files", _TEXTS),  # missing for a study without files
        ("logit_gap_after", pa.float64()),  # predicted without the removal set
        ("logit_gap_after_low", pa.float64()),  # 95 % interval
        ("logit_gap_after_high", pa.float64()),
        ("flip_probability", pa.float64()),  # predicted; what the list was selected by
        ("status", pa.string()),
        ("flip_rate", pa.float64()),  # share of retrained models that flip
        ("flip_rate_low", pa.float64()),  # Wilson's 95 % interval
        ("flip_rate_high", pa.float64()),
        ("margin_change_predicted", pa.float64()),
        ("margin_change", pa.float64()),
        ("seeds", pa.int64()),
        ("verification", pa.string()),
        ("method", pa.string()),
        ("scores_fingerprint", pa.string()),
        ("data_fingerprint", pa.string()),
        ("data_issues", _TEXTS),
        ("tags", _TEXTS),
        ("notes", _TEXTS),
    ]
)


def brittle_table(
    study: StudyReader,
    supports: Supports,
    verifications: Sequence[Verification] = (),
    data_issues: dict[DataIssue, np.ndarray] | None = None,
    tags: dict[int, TagsAndNotes] | None = None,
    rows: np.ndarray | None = None,
) -> pa.Table:
    """The table of the test examples `rows`, in that order; None: all predicted to flip.

    Args:
        verifications: Verifications of the algorithm. Each is matched by its test example and its
            exact removal set.
    """
    rows = supports.ranked if rows is None else np.asarray(rows, np.int64)
    test, train = study.table("test"), study.table("train")
    predictions = read_predictions(study, "test", supports.algorithm)
    ids = train["id"].astype(str).to_numpy()
    files = train[FILE].tolist() if FILE in train else None
    removals = [supports.removal(int(row)).tolist() for row in rows]
    sizes = supports.size[rows]
    last = np.maximum(sizes, 1) - 1
    at = np.arange(len(rows))
    after, half_width, probability = (
        of(rows)[at, last]
        for of in (supports.after, supports.half_width, supports.flip_probability)
    )
    within = sizes > 0
    error = supports.chance_half_width(rows)
    known = within & (supports.checkpoints > 1)
    proofs = verified(supports, verifications)
    outcomes = [None if int(row) not in proofs else proofs[int(row)].of(int(row)) for row in rows]
    tagged = [(tags or {}).get(int(row), TagsAndNotes()) for row in rows]

    def listed(values: Any, where: Any = True) -> list[Any]:
        """Values as Python objects, None where they are not known."""
        keep = np.broadcast_to(where, len(rows))
        return [
            value if kept else None
            for value, kept in zip(np.asarray(values).tolist(), keep, strict=True)
        ]

    def of_outcome(read: Any) -> list[Any]:
        return [None if outcome is None else read(outcome) for outcome in outcomes]

    confidence: list[Any] = [None] * len(rows)  # not every task has one
    if "confidence" in predictions:
        confidence = listed(predictions["confidence"].to_numpy(np.float64)[rows])
    columns: dict[str, list[Any]] = {
        "row": listed(rows),
        "id": listed(test["id"].astype(str).to_numpy()[rows]),
        "file": read_texts_of(study, "test", FILE, rows),
        "label": listed(test["label"].astype(str).to_numpy()[rows]),
        "predicted": listed(predictions["predicted"].astype(str).to_numpy()[rows]),
        "other": listed(other_answers(study, supports)[rows]),
        "correct": listed(supports.right[rows]),
        "confidence": confidence,
        "margin": listed(predictions["output"].to_numpy(np.float64)[rows]),
        "logit_gap": listed(supports.logit_gap[rows]),
        "logit_gap_low": listed(supports.logit_gap[rows] - error, supports.checkpoints > 1),
        "logit_gap_high": listed(supports.logit_gap[rows] + error, supports.checkpoints > 1),
        "support": listed(sizes, within),
        "removal_rows": removals,
        "removal_ids": [[ids[row] for row in removal] for removal in removals],
        "removal_files": [
            None if files is None else [files[row] for row in removal] for removal in removals
        ],
        "logit_gap_after": listed(after, within),
        "logit_gap_after_low": listed(after - half_width, known),
        "logit_gap_after_high": listed(after + half_width, known),
        "flip_probability": listed(probability, within),
        "status": [
            status_of(bool(flips), None if outcome is None else outcome.flipped)
            for flips, outcome in zip(within, outcomes, strict=True)
        ],
        "flip_rate": of_outcome(lambda one: one.flips.mean),
        "flip_rate_low": of_outcome(lambda one: one.flips.low),
        "flip_rate_high": of_outcome(lambda one: one.flips.high),
        "margin_change_predicted": of_outcome(
            lambda one: None if one.predicted is None else one.predicted.mean
        ),
        "margin_change": of_outcome(lambda one: one.change),
        "seeds": of_outcome(lambda one: len(one.without)),
        "verification": [proofs[int(row)].id if int(row) in proofs else None for row in rows],
        "method": [supports.method] * len(rows),
        "scores_fingerprint": [supports.scores] * len(rows),
        "data_fingerprint": [study.dataset.fingerprint] * len(rows),
        "data_issues": [
            [name for name, holds in (data_issues or {}).items() if holds[row]] for row in rows
        ],
        "tags": [one.tags for one in tagged],
        "notes": [one.notes for one in tagged],
    }
    return pa.table(columns, schema=COLUMNS)


def status_of(flips: bool, flipped: bool | None) -> Status:
    """The status of a prediction.

    Args:
        flips: Whether it is predicted to flip.
        flipped: Whether most retrained models flip; None if not verified.
    """
    if not flips:
        return "not within"
    return "predicted" if flipped is None else "verified" if flipped else "refuted"


def standing(table: pa.Table) -> dict[Status, int]:
    """How many rows have each status. Refuted ones are not counted as brittle."""
    found = table.column("status").to_pylist()
    return {status: found.count(status) for status in STATUSES}


def other_answers(study: StudyReader, supports: Supports) -> np.ndarray:
    """What each prediction would become after a flip, object `[n_test]`.

    The best wrong answer for a correct prediction, the right one for a wrong prediction.
    """
    outcomes = outcomes_of(study)
    wrong = best_wrong_answers(study, supports.algorithm)
    other = np.where(supports.right, wrong, own_answers(study, outcomes))
    return np.array(outcomes.names(other, study.dataset.classes), dtype=object)


# --- files --------------------------------------------------------------------------------------


def format_of(path: Path) -> Format:
    """The format for a file name's ending. Raises DataloupeError for an unknown ending."""
    ends: dict[str, Format] = {".csv": "csv", ".json": "json", ".parquet": "parquet"}
    if path.suffix not in ends:
        raise DataloupeError(
            f"{path}: unknown format. The file name must end with one of {', '.join(ends)}."
        )
    return ends[path.suffix]


def write(table: pa.Table, path: Path) -> None:
    """Write a file in the format of its ending, atomically.

    Raises:
        DataloupeError: Unknown format, or the folder is not writable.
        StoreError: The disk is full.
    """
    content = as_bytes(table, format_of(path))
    with store.writing_to(path), store.atomic(path) as temporary:
        temporary.write_bytes(content)


def as_bytes(table: pa.Table, format: Format) -> bytes:
    """The table as the content of a file.

    CSV: UTF-8, lists joined by `;`; cells that a spreadsheet would read as a formula begin with an
    apostrophe. JSON: one object per row. Parquet: the types of `COLUMNS`.
    """
    if format == "csv":
        return as_csv(table).encode()
    if format == "json":
        return (json.dumps(table.to_pylist(), indent=2, ensure_ascii=False) + "\n").encode()
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    return file.getvalue()


def as_csv(table: pa.Table) -> str:
    """The table as CSV text; see `as_bytes`."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(table.column_names)
    for row in table.to_pylist():
        writer.writerow([_cell(value) for value in row.values()])
    return file.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        texts = ("" if one is None else str(one).replace(";", ",") for one in value)
        return harmless(";".join(texts))
    return harmless(value) if isinstance(value, str) else value
