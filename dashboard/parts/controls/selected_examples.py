"""Selected examples of a split: what is selected in its gallery, with controls to change it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from dashboard.location import SELECTED, Location, choose, go
from dashboard.names import with_file
from dashboard.parts.controls.slice_filters import with_count
from dashboard.read.studies import Examples
from dashboard.slice_parameters import MOST_PICKED, rows_text
from engine.store.layout import Split


def select(rows: Sequence[int] | np.ndarray, split: Split = "test") -> None:
    """Callback: select only these rows."""
    go(**{SELECTED[split]: rows_text(rows) or None})


def selected_rows(location: Location, split: Split) -> np.ndarray:
    """The selected rows of a split, ascending int64."""
    chosen = location.selected if split == "test" else location.selected_train
    return np.array(chosen, dtype=np.int64)


def open_selection(rows: np.ndarray) -> None:
    """Callback: narrow the slice to these test rows."""
    go(only=rows_text(rows), selected=None, page=None)


def choose_examples(
    location: Location,
    split: Split,
    examples: Examples,
    rows: np.ndarray,
    shown: np.ndarray,
    kind: str,
) -> None:
    """Show a button that opens controls to select without the mouse or the arrow keys, and how many
    examples are selected.

    Args:
        rows: Of the slice.
        shown: Rows on the gallery's page.
    """
    chosen = selected_rows(location, split)
    with st.popover("Select", icon=":material/check_box:", width="content", key="choose"):
        _choose(chosen, split, examples, rows, shown, kind)
    if not len(chosen):
        words = "Select with Shift and a click or an arrow key, or with Space."
        st.html(f'<div class="dl-where dl-hint">{words}</div>', width="content")
        return
    count_chosen(chosen, split)


def count_chosen(chosen: np.ndarray, split: Split) -> None:
    """Show how many examples are selected, and a button to select none."""
    full = f", the maximum ({MOST_PICKED})" if len(chosen) >= MOST_PICKED else ""
    st.html(
        f'<div class="dl-where" role="status"><b>{len(chosen):,}</b> selected{full}</div>',
        width="content",
    )
    st.button(
        "Clear",
        icon=":material/close:",
        key="clear_selection",
        on_click=select,
        args=([], split),
    )


def _choose(
    chosen: np.ndarray,
    split: Split,
    examples: Examples,
    rows: np.ndarray,
    shown: np.ndarray,
    kind: str,
) -> None:
    offered = np.union1d(chosen, shown)
    with st.container(horizontal=True):
        st.button(
            f"All {len(shown):,} on this page",
            key="select_page",
            on_click=select,
            args=(offered[:MOST_PICKED], split),
        )
        if len(shown) < len(rows) <= MOST_PICKED:
            st.button(
                f"All {len(rows):,} in this slice",
                key="select_slice",
                on_click=select,
                args=(rows, split),
            )
    columns = [name for name in ("id", "label", "file") if name in examples.table]
    records = examples.table[columns].iloc[offered].to_dict("records")
    names = {
        int(row): f"{with_file(one)} · {one['label']}"
        for row, one in zip(offered, records, strict=True)
    }
    st.session_state["selected"] = chosen.tolist()
    st.multiselect(
        with_count(f"Selected {kind}", len(chosen), len(examples.table)),
        list(names),
        format_func=lambda row: names.get(row, str(row)),
        key="selected",
        max_selections=MOST_PICKED,
        on_change=lambda: choose(
            **{SELECTED[split]: rows_text(st.session_state["selected"]) or None}
        ),
    )
