"""Downloads: an explanation as JSON, CSV and the Python code that reproduces it; a slice as JSON
and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.location import Location
from dashboard.parts.controls.file_buttons import file_buttons
from dashboard.permissions import session
from dashboard.read.output_scores import explanation_of_output
from dashboard.read.studies import Examples
from engine.applications.brittle.table import Format
from engine.store.records import Explanation
from engine.store.text import harmless
from engine.study.reader import StudyReader


def export(
    study: StudyReader,
    row: int,
    id_: str,
    k: int,
    algorithm: str,
    method: str,
    output: str | None = None,
) -> None:
    """Show a button that opens the downloads of an explanation; files are made on request.

    Args:
        output: Name of the explained output; None for the default.
    """
    who = session()

    def content(format: Format) -> str:
        found = explanation_of_output(study, row, k, algorithm, method, output, who)
        return as_csv(found) if format == "csv" else as_json(found, study.dataset.fingerprint)

    with st.popover("Export", icon=":material/download:", width="content"):
        file_buttons(f"explain-{row}", content, ("json", "csv"))
        st.code(snippet(study, id_, k, algorithm, method, output), language=None, wrap_lines=True)


def export_slice(
    study: StudyReader, examples: Examples, rows: np.ndarray, what: str, location: Location
) -> None:
    """Show a button that opens the downloads of these examples, with all their columns."""

    def content(format: Format) -> str:
        if format == "csv":
            return rows_as_csv(examples, rows)
        return rows_as_json(examples, rows, location, study.dataset.fingerprint)

    with st.popover(f"Export {what}", icon=":material/download:", width="content"):
        file_buttons("slice", content, ("json", "csv"), "slice_")


def rows_as_json(examples: Examples, rows: np.ndarray, location: Location, fingerprint: str) -> str:
    """JSON of the examples, the fingerprint of their data, the algorithm and the slice."""
    content = {
        "data_fingerprint": fingerprint,
        "algorithm": location.algorithm,
        "slice": location.slice.parameters(),
        "examples": [{"row": int(row), **one} for row, one in _records(examples, rows)],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def rows_as_csv(examples: Examples, rows: np.ndarray) -> str:
    """CSV with one line per example: `row`, then the columns of its table."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["row", *map(harmless, _columns(examples).columns)])
    for row, one in _records(examples, rows):
        writer.writerow([row, *(harmless(v) if isinstance(v, str) else v for v in one.values())])
    return file.getvalue()


def _columns(examples: Examples) -> pd.DataFrame:
    """The table as files have it: the model output under its own name."""
    name = examples.output.replace(" ", "_")
    return examples.table.rename(columns={} if name in examples.table else {"output": name})


def _records(examples: Examples, rows: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with its columns, as JSON-compatible values."""
    table = _columns(examples).iloc[rows]
    columns = {str(name): table[name].tolist() for name in table.columns}
    for place, row in enumerate(rows):
        yield int(row), {name: values[place] for name, values in columns.items()}


def as_json(explanation: Explanation, fingerprint: str) -> str:
    """JSON of everything the view shows, with the fingerprint of its data."""
    content = {"data_fingerprint": fingerprint, **explanation.to_dict()}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def as_csv(explanation: Explanation) -> str:
    """CSV with one line per training example, strongest first, supporting before opposing."""
    file = io.StringIO()
    writer = csv.writer(file)
    heads = "test_row", "test_id", "test_file", "side", "rank", "train_row", "id", "file", "label"
    writer.writerow([*heads, "score", "influence", "influence_unit", "method"])
    method, unit = harmless(explanation.method), explanation.influence_unit
    sides = {"supporting": explanation.supporting, "opposing": explanation.opposing}
    for side, influences in sides.items():
        for rank, one in enumerate(influences, start=1):
            test = harmless(explanation.id), harmless(explanation.file or "")
            train = harmless(one.id), harmless(one.file or ""), harmless(one.label)
            about = explanation.row, *test, side, rank, one.row, *train
            writer.writerow([*about, one.score, one.influence, unit, method])
    return file.getvalue()


def snippet(
    study: StudyReader, id_: str, k: int, algorithm: str, method: str, output: str | None = None
) -> str:
    """Python code that gives the same explanation."""
    last = "" if output is None else f", output={output!r}"
    return (
        "from engine import Study\nfrom engine.store.quantities import SCORE\n\n"
        f"study = Study.open({str(study.root)!r})\n"
        f"explanation = study.explain({id_!r}, {k}, {algorithm!r}, {method!r}{last})\n"
        "for influence in explanation.supporting + explanation.opposing:\n"
        '    print(f"{SCORE.text(influence.score)}  {influence.id}  {influence.label}")\n'
    )
