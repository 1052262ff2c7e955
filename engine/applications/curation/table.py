"""Training examples with all that a curator looks at, as a table and as files.

One row a training example. `COLUMNS` lists every column; what is unknown is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from engine.applications.curation.label_suspicion import LabelSuspicion
from engine.study.decisions import Decision
from engine.study.examples import FILE, read_texts_of
from engine.study.names import read_names_of
from engine.study.reader import StudyReader

COLUMNS = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("file", pa.string()),  # of a picture, below the source; missing where there is none
        ("label", pa.string()),
        ("decision", pa.string()),  # keep, relabel or remove; missing where none was made
        ("new_label", pa.string()),  # of a relabeling
        ("decided_by", pa.string()),
        ("suggested_label", pa.string()),  # the likeliest other class
        ("label_suspicion", pa.float64()),  # share of the test labels that look less wrong
        ("flagged", pa.bool_()),
        ("label_log_odds", pa.float64()),  # by margin and neighbors: the lowest are most suspicious
        ("label_margin", pa.float64()),  # by models that did not see it, if there are any
        ("evidence", pa.string()),  # unseen: subset runs without the example; seen: checkpoints
        ("neighbors_disagree", pa.float64()),  # share of the nearest examples with another label
        ("self_influence", pa.float64()),  # what it adds to its own output
        ("net_influence", pa.float64()),  # sum of its influences on all test outputs
        ("method", pa.string()),  # of the net influence
        ("data_fingerprint", pa.string()),
    ]
)


def curation_table(
    study: StudyReader,
    rows: Sequence[int] | np.ndarray,
    suspicion: LabelSuspicion | None,
    decisions: Mapping[int, Decision],
    net_influence: np.ndarray | None = None,
    method: str | None = None,
) -> pa.Table:
    """The table of these training rows, in their order.

    Args:
        net_influence: Of all training examples, `[n_train]`; None if it is not known.
        method: Its method.
    """
    rows = np.asarray(rows, np.int64)
    names = read_names_of(study, "train", rows)
    made = [decisions.get(int(row)) for row in rows]

    def values(of: np.ndarray | None) -> list[Any]:
        if of is None:
            return [None] * len(rows)
        return [None if value != value else value for value in of[rows].tolist()]

    found = suspicion
    columns: dict[str, list[Any]] = {
        "row": rows.tolist(),
        "id": [str(one["id"]) for one in names],
        "file": read_texts_of(study, "train", FILE, rows),
        "label": [None if one["label"] is None else str(one["label"]) for one in names],
        "decision": [None if one is None else one.verdict for one in made],
        "new_label": [None if one is None else one.label for one in made],
        "decided_by": [None if one is None else one.who or None for one in made],
        "suggested_label": [None] * len(rows) if found is None else found.suggested(rows),
        "label_suspicion": values(None if found is None else found.suspicion),
        "flagged": values(None if found is None else found.flagged),
        "label_log_odds": values(None if found is None else found.log_odds),
        "label_margin": values(None if found is None else found.margin),
        "evidence": [None if found is None else found.evidence.kind] * len(rows),
        "neighbors_disagree": values(None if found is None else found.disagreement),
        "self_influence": values(None if found is None else found.self_influence),
        "net_influence": values(net_influence),
        "method": [None if net_influence is None else method] * len(rows),
        "data_fingerprint": [study.dataset.fingerprint] * len(rows),
    }
    return pa.table(columns, schema=COLUMNS)
