"""Brittle: predictions that depend on a few training examples, verified by retraining."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Literal
from urllib.parse import urlencode

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, WHAT_IF, Location, go, keep, read_location
from dashboard.names import short
from dashboard.parts.controls.copy_link_button import copy_link
from dashboard.parts.controls.downloads import export_slice
from dashboard.parts.controls.file_buttons import file_buttons
from dashboard.parts.controls.selected_examples import select
from dashboard.parts.controls.selection_bar import bar_of_chosen
from dashboard.parts.controls.tags_and_notes import tags_panel
from dashboard.parts.gallery.cards import test_cards
from dashboard.parts.gallery.example_header import subject
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.jobs.support_verification import progress, verify_first
from dashboard.parts.layout.blocks import aside
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import notice, warning
from dashboard.parts.layout.page_fragment import part
from dashboard.parts.layout.page_title import title
from dashboard.parts.quality.quality_badge import quality_badge
from dashboard.parts.removal.until_flip import until_flip
from dashboard.parts.replay.exact_removal_set import exact_removal_set
from dashboard.read.studies import badge, examples, open_study, requested_row, what_it_shows
from dashboard.read.supports import (
    LIKELY,
    LIKELY_BY_DEFAULT,
    MOST_SHOWN,
    brittle,
    matching,
    read_query,
    supports,
)
from dashboard.slice_parameters import MOST_PICKED, position_in_slice
from engine.applications.brittle.data_issues import RULES
from engine.applications.brittle.supports import AT_MOST
from engine.applications.brittle.table import STATUSES, Format, as_bytes, standing
from engine.build.retraining import check_recipe, has_recipe
from engine.store.errors import DataloupeError
from engine.store.quantities import FLIP
from engine.study.calibration_advice import calibration_advice
from engine.study.capabilities import missing
from engine.study.methods import has_scores, read_quality
from engine.study.models import has_predictions
from engine.study.reader import StudyReader
from engine.study.run_banks import wants_bank

PER_PAGE = 60
SIDE = 84
BADGES = {"verified": "✓ verified", "refuted": "✕ refuted", "predicted": "predicted"}
LIST_HEIGHT = 720
"""Of the list in pixels; it scrolls beside the prediction that is open."""
MARKS: dict[str, Literal["both", "alone"]] = {"verified": "both", "refuted": "alone"}

study = open_study()
location = read_location(study)
algorithm, method = location.algorithm, location.method
kind = f"{what_it_shows(study)}s"

if study.has_data and (reason := missing(study, "outcomes")):
    st.html(title("Brittle predictions", "none for this task"))
    notice("These predictions cannot flip", reason)
    with st.container(horizontal=True, horizontal_alignment="center"):
        for page, label in ((EXPLAIN, "Explain a prediction"), (WHAT_IF, "What if")):
            st.page_link(page, label=label, query_params=location.parameters())
    st.stop()
if method is None or not has_predictions(study, algorithm):
    building(
        "Brittle predictions appear here as soon as they are scored",
        lambda study: has_scores(study, algorithm) and has_predictions(study, algorithm),
        algorithm,
    )
    st.stop()

query = read_query(study)
if query.problems:
    warning(["This link has invalid parameters.", *query.problems])
found = supports(study, algorithm, method, query.at_most, query.likely)
arrow, table = brittle(study, found)
counted = standing(arrow)
test_examples = examples(study, "test", algorithm)
chosen, hint = requested_row(study, "test", location.test)


# --- filters and export ------------------------------------------------------------------------


def filters() -> None:
    """The filters of the list, each kept in the URL."""
    labels = sorted({*table["label"]} - {""})
    tags = sorted({tag for tags in table["tags"] for tag in tags})
    issues = [name for name in RULES if any(name in some for some in table["data_issues"])]
    states = {name: f"{BADGES[name]} ({counted[name]:,})" for name in STATUSES if counted[name]}
    choices = (
        ("status", "Status", states, query.status),
        ("label", "True class", {name: name for name in labels}, query.label),
        ("flag", "Data issue", {name: name for name in issues}, query.flag),
        ("tag", "Tag", {name: name for name in tags}, query.tag),
    )
    used = sum(value is not None for *_, value in choices)
    used += (query.at_most != AT_MOST) + (query.likely != LIKELY_BY_DEFAULT)
    with st.popover(f"Filters ({used})" if used else "Filters", icon=":material/filter_list:"):
        st.session_state["at_most"] = query.at_most
        st.number_input(
            "Remove at most",
            1,
            MOST_SHOWN,
            key="at_most",
            on_change=keep,
            args=("at_most", AT_MOST, ("page",)),
        )
        st.session_state["likely"] = query.likely
        st.selectbox(
            "Probability of a flip",
            LIKELY,
            format_func=lambda percent: f"at least {percent}%",
            key="likely",
            on_change=keep,
            args=("likely", LIKELY_BY_DEFAULT, ("page",)),
        )
        for name, label, options, value in choices:
            if name == "label" and not options:  # examples without labels
                continue
            if value is not None and value not in options:
                options = {value: BADGES.get(value, value), **options}
            st.session_state[name] = value
            st.selectbox(
                label,
                options,
                index=None,
                placeholder="Any but refuted" if name == "status" else "Any",
                format_func=options.__getitem__,
                key=name,
                on_change=keep,
                args=(name, None, ("page",)),
                help="\n\n".join(f"**{issue}**: {RULES[issue]}" for issue in issues) or None
                if name == "flag"
                else None,
            )


def export(number_listed: int) -> None:
    """A button with download options for the filtered list."""
    with st.popover(f"Export {number_listed:,}", icon=":material/download:", width="content"):
        file_buttons("brittle", _file)


def _file(format: Format) -> bytes:
    """The filtered list, read at download time: tags may be newer than the page."""
    arrow, current = brittle(study, found)
    return as_bytes(arrow.take(matching(current, query)), format)


def open_example(row: int) -> None:
    """Open one prediction."""
    go(test=str(test_examples.table["id"].iloc[row]), removed=None)


# --- the list ----------------------------------------------------------------------------------


def cards_of(places: np.ndarray, here: Location) -> list[Card]:
    """Cards with the data support of each prediction and its verification status."""
    some = table.iloc[places]
    plain_cards = test_cards(test_examples, some["row"].to_numpy(), here)
    cards = []
    for card, (_, one) in zip(plain_cards, some.iterrows(), strict=True):
        likely = FLIP.text(one["flip_probability"])
        hint = (
            f"{card.hint}; predicted to become {one['other']} without {one['support']:.0f} "
            f"training examples, with probability {likely}, {one['status']}"
        )
        if len(one["data_issues"]):
            hint += f"; data issues: {', '.join(one['data_issues'])}"
        parameters = st.query_params.to_dict() | {"test": str(one["id"])}
        parameters.pop("removed", None)
        cards.append(
            Card(
                row=card.row,
                name=str(one["predicted"]),
                note=f"→ {one['other']}",
                hint=hint,
                score=f"{likely} · k {one['support']:.0f}",
                bar=float(one["flip_probability"]),
                wrong=not one["correct"],
                href="brittle?" + urlencode(parameters),
                title=card.title,
                text=card.text,
                file=card.file,
                tag=BADGES[one["status"]] if one["status"] in MARKS else None,
                mark=MARKS.get(one["status"]),
            )
        )
    return cards


def listed(places: np.ndarray, study: StudyReader, here: Location) -> None:
    """The cards, one page at a time."""
    pages = max(1, -(-len(places) // PER_PAGE))
    page = max(1, min(here.page, pages))
    on_page = places[(page - 1) * PER_PAGE : page * PER_PAGE]
    group = Group(
        "Brittle predictions", cards_of(on_page, here), empty="No prediction matches these filters."
    )
    bar_of_chosen(
        study,
        here,
        "test",
        test_examples,
        lambda rows, which: export_slice(study, test_examples, rows, which, here),
    )
    gallery(
        study,
        "test",
        [group],
        SIDE,
        "brittle",
        open_example,
        selected=here.selected,
        most=MOST_PICKED,
        on_select=select,
    )
    if pages > 1:
        key = f"page_{page}"
        st.pagination(pages, default=page, key=key, on_change=keep, args=("page", 1, (), key))


def nothing_likely() -> None:
    """In place of an empty list: how much wider the search would have to be."""
    least = min(LIKELY)
    others = int((found.likeliest >= least / 100).sum())
    notice(
        f"No prediction flips with a probability of {FLIP.text(found.probability)} or more",
        f"{f'{others:,} flip' if others else 'None flips'} with {least}% or more when at most "
        f"{found.at_most} are removed. Removing more makes a flip likelier; more subset runs make "
        "its probability surer.",
    )
    with st.container(horizontal=True, horizontal_alignment="center"):
        for label, name, value, useful in (
            (f"List those from {least}%", "likely", least, others > 0),
            (f"Remove up to {MOST_SHOWN}", "at_most", MOST_SHOWN, found.at_most < MOST_SHOWN),
        ):
            if useful:
                st.button(label, on_click=go, kwargs={name: value}, key=f"wider_{name}")


# --- one prediction ----------------------------------------------------------------------------


def detail(row: int, study: StudyReader, here: Location) -> None:
    """The prediction as examples are removed; only this is redrawn by its slider."""
    until_flip(study, found, row, read_query(study).k, here)
    exact_removal_set(study, found, row, here)
    tags_panel(study, found.algorithm, row)


def one_prediction(row: int, rows: np.ndarray) -> None:
    """One prediction in a frame, with buttons to its neighbors in the list `rows`."""
    place, before, after = position_in_slice(rows, row)
    id_ = str(test_examples.ids[row])
    with st.container(border=True, key="one"):
        with st.container(horizontal=True, vertical_alignment="center", key="prediction_bar"):
            st.html(f'<h2 class="dl-heading">{escape(short(id_))}</h2>', width="content")
            if place is not None:
                where = f"<b>{place:,}</b> of {len(rows):,}"
                st.html(f'<div class="dl-where">{where}</div>', width="content")
            st.space("stretch")
            for name, other, arrow_key in (("Previous", before, "Left"), ("Next", after, "Right")):
                st.button(
                    name,
                    disabled=other is None,
                    shortcut=arrow_key,
                    on_click=open_example,
                    args=(other,),
                    key=name.lower(),
                )
            if st.button("Explain", icon=":material/compare_arrows:", key="explain"):
                st.switch_page(EXPLAIN, query_params=location.parameters(test=id_))
        side, main = st.columns([0.3, 0.7], gap="medium")
        with side:
            subject(study, algorithm, "test", row, test_examples.table.iloc[row].to_dict())
            for issue in next(iter(table["data_issues"][table["row"] == row]), ()):
                st.html(f'<p class="dl-aside"><b>{issue}</b>: {escape(RULES[issue])}</p>')
        with main:
            part(location, partial(detail, row))


# --- the page ----------------------------------------------------------------------------------

places = matching(table, query)
with st.container(horizontal=True, vertical_alignment="center"):
    refuted = counted["refuted"]
    st.html(
        title(
            "Brittle predictions",
            f"{len(table) - refuted:,} of {len(found.logit_gap):,} are predicted to flip when at "
            f"most {query.at_most} training {kind} are removed"
            + (f", {counted['verified']:,} of them verified" if counted["verified"] else "")
            + (f"; retraining refuted {refuted:,} more" if refuted else ""),
        )
    )
    quality_badge(badge(study, algorithm, method))
    copy_link("copy")

progress(study)
if chosen is None and location.test is not None:
    warning([f"There is no test example “{short(location.test)}” here.{hint}"])
if not found.calibrated and wants_bank(study, algorithm) and read_quality(study, algorithm) is None:
    if chosen is not None:
        one_prediction(chosen, np.empty(0, np.int64))
    building(
        "Flips are predicted as soon as the subset runs are measured",
        lambda study: read_quality(study, algorithm) is not None,
        algorithm,
    )
    st.stop()
if not found.calibrated:
    if chosen is not None:
        one_prediction(chosen, np.empty(0, np.int64))
    notice(
        "The scores are not calibrated",
        "Training examples are ranked, but the effect of removing them cannot be predicted. "
        + calibration_advice(study, algorithm, method),
    )
    st.stop()

rows = table["row"].to_numpy(np.int64)[places]
if not len(table):
    with st.container(horizontal=True, key="toolbar"):
        filters()
    nothing_likely()
    if chosen is not None:
        one_prediction(chosen, rows)
    st.stop()
with st.container(key="list_and_detail" if location.test is None else "detail_and_list"):
    left, right = st.columns([0.34, 0.66], gap="medium")
with left:
    with st.container(horizontal=True, vertical_alignment="center", key="toolbar"):
        st.html(f'<div class="dl-where"><b>{len(places):,}</b> listed</div>', width="content")
        st.space("stretch")
        filters()
        if has_recipe(study, algorithm) and len(places):
            verify_first(study, found, rows)
        export(len(places))
    with st.container(height=LIST_HEIGHT, border=False, key="brittle_list"):
        part(location, partial(listed, places))
    try:
        check_recipe(study, algorithm)
    except DataloupeError as error:
        aside(f"These predictions cannot be verified: {error}")
with right:
    if chosen is None and len(rows) and location.test is None:
        chosen = int(rows[0])
    if chosen is not None:
        one_prediction(chosen, rows)
