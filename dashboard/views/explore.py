"""Explore: all test examples in a gallery, filtered by class and by prediction."""

from __future__ import annotations

import streamlit as st

from dashboard.location import EXPLAIN, Location, go, keep, read_location
from dashboard.parts.controls.downloads import export_slice
from dashboard.parts.controls.saved_slices import saved
from dashboard.parts.controls.selected_examples import select
from dashboard.parts.controls.selection_bar import selection_bar
from dashboard.parts.controls.slice_filters import filters, order
from dashboard.parts.controls.thumbnail_size import PER_PAGE, SIDE, size_control
from dashboard.parts.gallery.cards import test_cards
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.layout.build_progress import building, unpredicted
from dashboard.parts.layout.messages import notice
from dashboard.parts.layout.page_fragment import part
from dashboard.read.studies import examples, open_study, slice_rows, typed_id, what_it_shows
from dashboard.slice_parameters import FORMER, MOST_PICKED, PARAMETERS, rows_text
from engine.study.capabilities import has
from engine.study.models import has_predictions
from engine.study.reader import StudyReader

study = open_study()
location = read_location(study)
algorithm = location.algorithm
kind = f"{what_it_shows(study)}s"

if not study.has_data:
    building(f"The test {kind} appear here first", lambda study: study.has_data, algorithm)
    st.stop()

found = examples(study, "test", algorithm)
rows = slice_rows(study, found, location)


def open_example(here: Location, test: str) -> None:
    """Explain a test example in the same slice, and keep the selection for the way back."""
    chosen = {"selected": rows_text(here.selected)} if here.selected else {}
    st.switch_page(EXPLAIN, query_params=here.parameters(test=test, **chosen))


# --- title, count, filters ---------------------------------------------------------------------

head = st.container(horizontal=True, vertical_alignment="center", key="slice")
with head:
    heading = f'<div class="dl-title"><h1>Test {kind}</h1>'
    st.html(
        f"{heading}<span><b>{len(rows):,}</b> / {len(found.table):,}</span></div>", width="content"
    )
    filters(study, location, found)

if not found.has_predictions and location.method is not None:
    unpredicted(study)
elif not found.has_predictions:
    with st.container() if algorithm in study.uploads else head:
        building(
            "Predictions appear as soon as they are computed",
            lambda study: has_predictions(study, algorithm),
            algorithm,
            in_line=True,
        )


# --- the gallery and its selection -------------------------------------------------------------


def cards_of_slice(study: StudyReader, here: Location) -> None:
    """The toolbar, the cards and the pager: the part that paging and selecting redraw."""
    per_page = PER_PAGE[here.size]
    pages = -(-len(rows) // per_page)
    page = max(1, min(here.page, pages))
    first = (page - 1) * per_page
    on_page = rows[first : first + per_page]

    def sizes_and_slices() -> None:
        order(here, found)
        if has(study, "pictures"):
            size_control(here.size, first)
        saved(study, here, found)

    selection_bar(
        study,
        here,
        "test",
        found,
        rows,
        on_page,
        kind,
        lambda some, which: export_slice(study, found, some, which, here),
        sizes_and_slices,
    )
    if not len(rows):
        notice(
            f"No {kind} match", f"No test example matches: {location.slice.words(found.output)}."
        )
        with st.container(horizontal=True, horizontal_alignment="center"):
            nothing = dict.fromkeys((*PARAMETERS, FORMER, "page"))
            st.button("Show all", key="show_all", on_click=go, kwargs=nothing)
        return
    gallery(
        study,
        "test",
        [Group(f"Test {kind}", test_cards(found, on_page, here))],
        SIDE[here.size],
        "gallery",
        lambda row: open_example(here, str(found.table["id"].iloc[row])),
        selected=here.selected,
        most=MOST_PICKED,
        on_select=select,
    )
    with st.container(
        horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom"
    ):
        if pages > 1:
            key = f"page_{page}"  # A new key: only a new pager follows its default.
            st.pagination(pages, default=page, key=key, on_change=keep, args=("page", 1, (), key))
        st.text_input(
            "Open by id, or row as #17",
            placeholder=str(found.table["id"].iloc[rows[0]]),
            key="open",
            on_change=lambda: open_example(
                here, typed_id(study, "test", st.session_state["open"] or "#0") or "#0"
            ),
            width=220,
        )


part(location, cards_of_slice)
