"""All test examples in the plane of two directions; a lasso opens the selection as a gallery."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, Location
from dashboard.parts.charts.map_preview import map_preview
from dashboard.parts.charts.scatter_map import (
    CLASS,
    LABEL,
    Selection,
    colours_of,
    drawn_rows,
    layers,
    scatter,
    selection_of,
)
from dashboard.parts.gallery.cards import test_cards
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.layout.blocks import aside, heading
from dashboard.read.studies import Examples, examples
from engine import store
from engine.store import layout
from engine.store.layout import Split
from engine.study.reader import StudyReader

SIDE = 84
SHOWN = 36
HEIGHT = 440


def direction_space(
    study: StudyReader, about: dict[str, Any], key: str, number: int, location: Location
) -> None:
    """Draw the test examples along this direction and the next one of the same side."""
    arrays = store.read_tensors(layout.comparison_arrays_file(study.root, about["id"]))
    along = np.asarray(arrays[f"{key}_projections"], np.float64)
    if along.shape[1] < 2:
        return
    other = number + 1 if number + 1 < along.shape[1] else 0
    state = f"space {about['id']} {key} {number}"
    both: dict[Split, Examples] = {
        "train": examples(study, "train"),
        "test": examples(study, "test", about[key]["algorithm"]),
    }
    chosen: Selection = st.session_state.get(state, {"train": [], "test": []})

    def select() -> None:
        points = st.session_state[f"chart {state}"].selection.points
        if points:
            st.session_state[state] = selection_of(points)

    heading(f"All test examples along directions {number + 1} and {other + 1}")
    rows = drawn_rows({"train": 0, "test": study.dataset.n_test}, chosen)
    rows["train"] = np.empty(0, np.int64)
    titles = colours_of(both)
    by = next((name for name in (CLASS, LABEL) if name in titles), "")
    colored = f", colored by {titles[by].lower()}" if by else ""
    words = (
        f"{len(rows['test']):,} test examples{colored}. Those in the middle do not differ "
        "between the algorithms. Draw a lasso around some, or click one."
    )
    aside(words)
    place = {"test": along[:, [number, other]], "train": np.empty((0, 2))}
    figure = scatter(place, both, layers(both, rows, by), chosen, None, by)
    figure.update_layout(
        height=HEIGHT,
        xaxis={"visible": True, "title": f"Direction {number + 1}", "zeroline": True},
        yaxis={"visible": True, "title": f"Direction {other + 1}", "scaleanchor": None},
    )
    with st.container(key="space_chart"):
        st.plotly_chart(
            figure,
            key=f"chart {state}",
            on_select=select,
            selection_mode=("points", "box", "lasso"),
            config={"displaylogo": False},
            alt=f"Projections on directions {number + 1} and {other + 1}. {words}",
        )
    map_preview(study, "space_chart")
    if not chosen["test"]:
        return
    selected = np.array(chosen["test"], np.int64)
    more = f"; {SHOWN} are shown" if len(selected) > SHOWN else ""
    gallery(
        study,
        "test",
        [
            Group(
                "Selected test examples",
                test_cards(both["test"], selected[:SHOWN], location),
                title="Selected",
                words=f"{len(selected):,}{more}.",
            )
        ],
        SIDE,
        "direction_selected",
        lambda row: st.switch_page(
            EXPLAIN, query_params=location.parameters(test=str(both["test"].ids[row]))
        ),
    )
