"""The training set as a table with all its columns, page by page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.location import Location
from dashboard.parts.controls.selected_examples import select, selected_rows
from dashboard.parts.curation.decision_words import decided
from dashboard.read.curation import SHOWN, Curation
from dashboard.read.studies import Examples
from dashboard.slice_parameters import MOST_PICKED
from engine.store.quantities import (
    CONFIDENCE,
    ERROR,
    OUTPUT,
    PREDICTIONS,
    SUSPICION,
    predicted_text,
)
from engine.study.decisions import Decision

LONGEST = 200
"""Characters of a text in a cell."""
OF_PREDICTIONS: dict[str, Callable[[Any], object]] = {
    "confidence": CONFIDENCE.text,
    "output": OUTPUT.text,
    "error": ERROR.text,
}


def examples_table(
    training: Examples,
    rows: np.ndarray,
    here: Location,
    found: Curation,
    decisions: Mapping[int, Decision],
) -> None:
    """Show these rows with their metadata; the boxes in front select them."""
    shown = _columns(training, rows, found, decisions)
    chosen = selected_rows(here, "train")
    key = f"table_{here.page}_{here.slice.sort}_{len(rows)}"

    def changed() -> None:
        picked = rows[st.session_state[key].selection.rows]
        others = chosen[~np.isin(chosen, rows)]
        select(np.union1d(others, picked)[:MOST_PICKED], "train")

    st.dataframe(
        shown,
        key=key,
        hide_index=True,
        alt=f"Table of {len(shown):,} training examples",
        height=min(38 + 35 * len(shown), 640),
        on_select=changed,
        selection_mode="multi-row",
        selection_default={"selection": {"rows": np.flatnonzero(np.isin(rows, chosen)).tolist()}},
    )


def _columns(
    training: Examples, rows: np.ndarray, found: Curation, decisions: Mapping[int, Decision]
) -> pd.DataFrame:
    """The table as people read it: every quantity by its own rounding."""
    table = training.table.iloc[rows]
    columns: dict[str, Any] = {"id": table["id"].astype(str).tolist()}
    if found.suspicion is not None:
        columns["label"] = table["label"].tolist()
        columns["looks like"] = found.suspicion.suggested(rows)
        columns["suspicion"] = [SUSPICION.text(one) for one in found.suspicion.suspicion[rows]]
    made = [decisions.get(int(row)) for row in rows]
    if any(made):
        columns["decision"] = ["" if one is None else decided(one) for one in made]
    for name, (words, quantity) in SHOWN.items():
        title = words if name not in ("harm", "help") else f"{words}, {found.unit}"
        if name in found.values and title not in columns:
            values = found.values[name][rows]
            columns[title] = [quantity.text(v) if np.isfinite(v) else "" for v in values]
    titles = {"output": training.output, "predicted": PREDICTIONS[training.predicted].name}
    write_predicted = partial(predicted_text, kind=training.predicted)
    for name in map(str, table.columns):
        if name in columns or name == "source_row" or not table[name].notna().any():
            continue
        write = write_predicted if name == "predicted" else OF_PREDICTIONS.get(name, _cell)
        columns[titles.get(name, name)] = [write(value) for value in table[name]]
    return pd.DataFrame(columns)


def _cell(value: object) -> object:
    return value if not isinstance(value, str) else value[:LONGEST]
