"""Training set: all training examples as a gallery or a table, and the review of their labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from dashboard.location import TRAINING, Location, go, keep, read_location
from dashboard.parts.controls.segmented_choice import choice
from dashboard.parts.controls.selected_examples import select
from dashboard.parts.controls.selection_bar import selection_bar
from dashboard.parts.controls.slice_filters import filters, order, order_titles
from dashboard.parts.controls.thumbnail_size import PER_PAGE, SIDE, size_control
from dashboard.parts.curation.decision_export import export_decisions, export_training
from dashboard.parts.curation.examples_table import examples_table
from dashboard.parts.curation.review import read_queue, review, review_progress
from dashboard.parts.curation.training_cards import training_set_cards
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import notice
from dashboard.parts.layout.page_fragment import part
from dashboard.read.curation import (
    ANY,
    DECIDED,
    curation,
    decided_rows,
    decisions,
    queue_rows,
    training_rows,
)
from dashboard.read.studies import examples, open_study, requested_row, what_it_shows
from dashboard.slice_parameters import FORMER, MOST_PICKED, NEED_SCORES, PARAMETERS, can_sort
from engine.store.text import counted
from engine.study.capabilities import has
from engine.study.reader import StudyReader

GRID, TABLE, REVIEW = "grid", "table", "review"
ICONS = {GRID: ":material/grid_view: Grid", TABLE: ":material/table_rows: Table"}
ROWS_OF_TABLE = 100
study = open_study()
address = read_location(study)
location = address.of_slice(replace(address.slice, only=None))  # those are rows of test examples
algorithm = location.algorithm
kind = f"{what_it_shows(study)}s"

if not study.has_data:
    building(f"The training {kind} appear here first", lambda study: study.has_data, algorithm)
    st.stop()

found = examples(study, "train", algorithm)
columns = curation(study, algorithm, location.method)
made = decisions(study)


def chosen_of(name: str, known: dict[str, str], default: str) -> str:
    """A parameter of this page's own; its default if it is not one of the known values."""
    value = st.query_params.get(name, default)
    return value if value in known else default


def in_slice() -> np.ndarray:
    """Rows of the slice in its order, with the decision that is asked for."""
    return decided_rows(training_rows(study, found, location, columns), made, wanted)


wanted = chosen_of("decided", DECIDED, ANY)
rows = in_slice()
views = dict(ICONS)
if columns.suspicion is not None:
    count = len(queue_rows(columns.suspicion, rows))
    views[REVIEW] = f":material/rate_review: Review {counted(count, 'label')}"
view = chosen_of("view", views, GRID)

# --- title, count, filters ---------------------------------------------------------------------

head = st.container(horizontal=True, vertical_alignment="center", key="slice")
with head:
    heading = f'<div class="dl-title"><h1>Training {kind}</h1>'
    st.html(
        f"{heading}<span><b>{len(rows):,}</b> / {len(found.table):,}</span></div>", width="content"
    )
    choice("View", views, view, "view", GRID, ("page",), "collapsed")
    titles = order_titles(found.output)
    orders = columns.titles() | {
        name: title
        for name, title in titles.items()
        if found.has_predictions
        and name not in NEED_SCORES
        and can_sort(name, found.columns, scored=False)
    }
    filters(study, location, found)
    if made and view != REVIEW:
        st.session_state["decided"] = wanted
        st.selectbox(
            "Decision",
            list(DECIDED),
            format_func=DECIDED.__getitem__,
            key="decided",
            on_change=keep,
            args=("decided", ANY, ("page",)),
            label_visibility="collapsed",
            width=170,
        )


def export_rows(some: np.ndarray, which: str) -> None:
    """Downloads of these rows with all their columns, and of the decisions."""
    export_training(study, location, some, which)
    if made:
        export_decisions(study, location, columns, made)


def set_of_examples(study: StudyReader, here: Location) -> None:
    """The selection bar, the cards or the table, and the pager: the part that paging redraws."""
    here = here.of_slice(replace(here.slice, only=None))
    if decisions(study) != made:
        st.rerun()  # the slice, its filter by decision and the downloads change with them
    per_page = ROWS_OF_TABLE if view == TABLE else PER_PAGE[here.size]
    pages = max(1, -(-len(rows) // per_page))
    page = max(1, min(here.page, pages))
    first = (page - 1) * per_page
    on_page = rows[first : first + per_page]

    def sizes() -> None:
        order(here, found, orders)
        if view == GRID and has(study, "pictures"):
            size_control(here.size, first)

    selection_bar(study, here, "train", found, rows, on_page, kind, export_rows, sizes)
    if not len(rows):
        words = here.slice.words(found.output) or DECIDED[wanted].lower()
        notice(f"No {kind} match", f"No training example matches: {words}.")
        with st.container(horizontal=True, horizontal_alignment="center"):
            nothing = dict.fromkeys((*PARAMETERS, FORMER, "page", "decided"))
            st.button("Show all", key="show_all", on_click=go, kwargs=nothing)
        return
    if view == TABLE:
        examples_table(found, on_page, here, columns, made)
    else:
        gallery(
            study,
            "train",
            [
                Group(
                    f"Training {kind}",
                    training_set_cards(found, on_page, here, columns, made, here.slice.sort),
                )
            ],
            SIDE[here.size],
            "gallery",
            lambda row: st.switch_page(
                TRAINING, query_params=here.parameters(train=str(found.ids[row]))
            ),
            selected=here.selected_train,
            most=MOST_PICKED,
            on_select=lambda some: select(some, "train"),
        )
    with st.container(
        horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom"
    ):
        if pages > 1:
            key = f"page_{page}"  # A new key: only a new pager follows its default.
            st.pagination(pages, default=page, key=key, on_change=keep, args=("page", 1, (), key))


# --- gallery, table or review ------------------------------------------------------------------

if view == REVIEW and columns.suspicion is not None:
    suspicion = columns.suspicion
    row, _ = requested_row(study, "train", location.train)
    queue = read_queue(study, suspicion, rows, row)
    if queue is None:
        notice("Nothing to review", "No training example is in this slice.")
    else:
        review(study, location, found, columns, queue, kind)
        with head:  # last, so that the count goes up when the next decision can be made
            review_progress(study, location, columns, queue)
else:
    part(address, set_of_examples)
