"""Explore: all test examples in a gallery, filtered by class and by what the model says."""

from __future__ import annotations

import streamlit as st

from dashboard.components.building import building, unpredicted
from dashboard.components.cards import test_cards
from dashboard.components.filters import filters
from dashboard.components.gallery import Group, gallery
from dashboard.components.notice import notice
from dashboard.data import examples, open_study, slice_rows
from dashboard.location import EXPLAIN, go, keep, read_location

PER_PAGE = 120
SIDE = 112

study = open_study()
location = read_location(study)
algorithm = location.algorithm
kind = "pictures" if study.spec.task.name.startswith("image") else "texts"

if not study.has_data:
    building(f"The test {kind} appear here first", lambda study: study.has_data, algorithm)
    st.stop()

found = examples(study, "test", algorithm)
rows = slice_rows(study, found, location)


def open_example(test: str) -> None:
    """Explain a test example, in the same slice."""
    st.switch_page(EXPLAIN, query_params=location.parameters(test=test))


# --- title, count, filters ---------------------------------------------------------------------

st.html(
    f'<div class="dl-title"><h1>Test {kind}</h1>'
    f"<span><b>{len(rows):,}</b> / {len(found.table):,}</span></div>"
)
filters(study, location, found)

if not found.has_predictions and location.method is not None:
    unpredicted(study)
elif not found.has_predictions:
    building(
        "Predictions appear as soon as they are made",
        lambda study: study.has_predictions(algorithm),
        algorithm,
    )

# --- the gallery -------------------------------------------------------------------------------

if not len(rows):
    notice(f"No {kind} are like this", f"Nothing here has {location.slice.words()}.")
    with st.container(horizontal=True, horizontal_alignment="center"):
        st.button(
            "Show all",
            on_click=go,
            kwargs=dict.fromkeys(("label", "predicted", "result", "margin", "page")),
        )
    st.stop()

pages = -(-len(rows) // PER_PAGE)
page = min(location.page, pages)
cards = test_cards(found, rows[(page - 1) * PER_PAGE : page * PER_PAGE], location)
gallery(
    study,
    "test",
    [Group(f"Test {kind}", cards)],
    SIDE,
    "gallery",
    lambda row: open_example(str(found.table["id"].iloc[row])),
)

# --- other pages, and any example by name ------------------------------------------------------

with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom"):
    if pages > 1:
        key = f"page_{page}"  # The pager takes its page from its default, so each has its own.
        st.pagination(pages, default=page, key=key, on_change=keep, args=("page", 1, (), key))

    st.text_input(
        "Open by id or row number",
        placeholder=str(found.table["id"].iloc[rows[0]]),
        key="open",
        on_change=lambda: open_example(st.session_state["open"].strip() or "0"),
        width=220,
    )
