"""Selected examples: what is selected in the gallery, with controls to change it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from dashboard.location import Location, go
from dashboard.names import with_file
from dashboard.parts.controls.slice_filters import with_count
from dashboard.read.studies import Examples
from dashboard.slice_parameters import MOST_PICKED, rows_text


def select(rows: Sequence[int] | np.ndarray) -> None:
    """Callback: select only these rows."""
    go(selected=rows_text(rows) or None)


def open_selection(rows: np.ndarray) -> None:
    """Callback: narrow the slice to these rows."""
    go(only=rows_text(rows), selected=None, page=None)


def selection(
    location: Location, examples: Examples, rows: np.ndarray, shown: np.ndarray, kind: str
) -> None:
    """Show the selection and what can be done with it.

    Args:
        rows: Of the slice.
        shown: Rows on the gallery's page.
    """
    chosen = np.array(location.selected, dtype=np.int64)
    with st.popover("Select", icon=":material/check_box:", width="content"):
        _choose(chosen, examples, rows, shown, kind)
    if not len(chosen):
        words = "Select with Shift and a click or an arrow key, or with Space."
        st.html(f'<div class="dl-where dl-hint">{words}</div>', width="content")
        return
    full = f", the maximum ({MOST_PICKED})" if len(chosen) >= MOST_PICKED else ""
    st.html(
        f'<div class="dl-where" role="status"><b>{len(chosen):,}</b> selected{full}</div>',
        width="content",
    )
    st.button(
        "Open selection",
        icon=":material/filter_alt:",
        key="open_selection",
        on_click=open_selection,
        args=(chosen,),
    )
    st.button("Clear", key="clear_selection", on_click=select, args=([],))


def _choose(
    chosen: np.ndarray, examples: Examples, rows: np.ndarray, shown: np.ndarray, kind: str
) -> None:
    """Show controls that select without the mouse or the arrow keys."""
    offered = np.union1d(chosen, shown)
    with st.container(horizontal=True):
        st.button(
            f"All {len(shown):,} on this page",
            key="select_page",
            on_click=select,
            args=(offered[:MOST_PICKED],),
        )
        if len(shown) < len(rows) <= MOST_PICKED:
            st.button(
                f"All {len(rows):,} in this slice",
                key="select_slice",
                on_click=select,
                args=(rows,),
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
        on_change=lambda: select(st.session_state["selected"]),
    )
