"""Brittle: predictions that depend on a few training examples, verified by retraining."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Any, Literal
from urllib.parse import urlencode

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, WHAT_IF, Location, go, keep, read_location
from dashboard.names import short
from dashboard.parts.charts.logit_gap_curve import logit_gap_curve
from dashboard.parts.controls.copy_link_button import copy_link
from dashboard.parts.controls.tags_and_notes import tags_panel
from dashboard.parts.gallery.cards import influence_cards, test_cards
from dashboard.parts.gallery.example_header import subject
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.jobs.support_verification import progress, verify_button, verify_first
from dashboard.parts.layout.blocks import aside
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import notice, warning
from dashboard.parts.layout.page_fragment import part
from dashboard.parts.layout.page_title import title
from dashboard.parts.quality.quality_badge import quality_badge
from dashboard.parts.removal.removal_buttons import removal_buttons
from dashboard.read.studies import badge, examples, open_study, requested_row, what_it_shows
from dashboard.read.supports import (
    MOST_SHOWN,
    brittle,
    matching,
    read_query,
    supports,
    verifications,
)
from dashboard.slice_parameters import position_in_slice
from engine.applications.brittle.data_issues import RULES
from engine.applications.brittle.supports import AT_MOST, REQUIRED_AGREEMENT, verified
from engine.applications.brittle.table import STATUSES, Format, as_bytes
from engine.applications.verification import Verification
from engine.attribution.evaluation.quality import TWO_SIDED_95
from engine.build.retraining import check_recipe, has_recipe
from engine.store.errors import DataloupeError
from engine.store.quantities import CHANGE, LOGIT_GAP, SHARE
from engine.study.calibration_advice import calibration_advice
from engine.study.capabilities import missing
from engine.study.methods import has_scores, read_quality
from engine.study.models import has_predictions
from engine.study.rankings import influences
from engine.study.reader import StudyReader
from engine.study.run_banks import wants_bank

FILES: tuple[tuple[str, Format, str], ...] = (
    ("CSV", "csv", "text/csv"),
    ("JSON", "json", "application/json"),
    ("Parquet", "parquet", "application/vnd.apache.parquet"),
)
PER_PAGE = 60
SIDE = 112
BADGES = {"verified": "✓ verified", "refuted": "✕ refuted", "predicted": "predicted"}
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
found = supports(study, algorithm, method, query.at_most)
table = brittle(study, found)[1]
test_examples = examples(study, "test", algorithm)
chosen, hint = requested_row(study, "test", location.test)


# --- filters and export ------------------------------------------------------------------------


def filters() -> None:
    """The filters of the list, each kept in the URL."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        st.session_state["at_most"] = query.at_most
        st.number_input(
            "Remove at most",
            1,
            MOST_SHOWN,
            key="at_most",
            on_change=keep,
            args=("at_most", AT_MOST, ("page",)),
            width=150,
        )
        labels = sorted(set(table["label"]))
        tags = sorted({tag for tags in table["tags"] for tag in tags})
        issues = [name for name in RULES if any(name in some for some in table["data_issues"])]
        for name, label, options, value in (
            ("status", "Status", [one for one in STATUSES if one in BADGES], query.status),
            ("label", "True class", labels, query.label),
            ("flag", "Data issue", issues, query.flag),
            ("tag", "Tag", tags, query.tag),
        ):
            if value is not None and value not in options:
                options = [value, *options]
            st.session_state[name] = value
            st.selectbox(
                label,
                options,
                index=None,
                placeholder="Any",
                key=name,
                on_change=keep,
                args=(name, None, ("page",)),
                width=190,
                help="\n\n".join(f"**{issue}**: {RULES[issue]}" for issue in issues) or None
                if name == "flag"
                else None,
            )


def export(number_listed: int) -> None:
    """A button with download options for the filtered list."""
    with (
        st.popover(f"Export {number_listed:,}", icon=":material/download:", width="content"),
        st.container(horizontal=True),
    ):
        for name, format_, mime in FILES:
            st.download_button(
                name,
                partial(_file, format_),
                file_name=f"brittle.{format_}",
                mime=mime,
                on_click="ignore",
                key=format_,
            )


def _file(format_: Format) -> bytes:
    """The filtered list, read at download time: tags may be newer than the page."""
    arrow, current = brittle(study, found)
    return as_bytes(arrow.take(matching(current, query)), format_)


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
        changes = f"→ {one['other']}"
        hint = (
            f"{card.hint}; predicted to become {one['other']} without {one['support']:.0f} "
            f"training examples, {one['status']}"
        )
        if len(one["data_issues"]):
            hint += f"; data issues: {', '.join(one['data_issues'])}"
        parameters = st.query_params.to_dict() | {"test": str(one["id"])}
        parameters.pop("removed", None)
        cards.append(
            Card(
                row=card.row,
                name=str(one["predicted"]),
                note=changes,
                hint=hint,
                aside=f"k {one['support']:.0f}",
                wrong=not one["correct"],
                href="brittle?" + urlencode(parameters),
                title=card.title,
                text=card.text,
                file=card.file,
                tag=BADGES[one["status"]],
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
    gallery(study, "test", [group], SIDE, "brittle", open_example)
    if pages > 1:
        key = f"page_{page}"
        st.pagination(pages, default=page, key=key, on_change=keep, args=("page", 1, (), key))


# --- one prediction ----------------------------------------------------------------------------


def verdict(row: int, size: int, after: float, half_width: float) -> str:
    """One sentence: the predicted effect of the removal."""
    example = test_examples.table.iloc[row]
    predicted, label = escape(short(example["predicted"])), escape(short(example["label"]))
    kinds = "supporters" if found.right[row] else "opposers"
    is_now = f"“{predicted}”" + (
        ", which is correct" if found.right[row] else f", but it is {label}"
    )
    if not found.calibrated:
        return (
            f"Predicted {is_now}. The scores are not calibrated, so its {kinds} are ranked, but "
            "the effect of removing them is not predicted."
        )
    if found.agreement[row] < REQUIRED_AGREEMENT:
        return (
            f"Predicted {is_now}. No flip is predicted: only {SHARE.text(found.agreement[row])} of "
            "the models trained on all data agree, so it depends on chance, not on examples."
        )
    if not size:
        return (
            f"Predicted {is_now}. Not predicted to flip when its {found.at_most} strongest {kinds} "
            "are removed."
        )
    removed = f"{size} strongest {kinds}" if size > 1 else f"strongest {kinds[:-1]}"
    interval_ = LOGIT_GAP.within(after, after - half_width, after + half_width)
    before = LOGIT_GAP.text(found.logit_gap[row])
    return (
        f"Predicted {is_now}. Without its <b>{removed}</b> it is predicted to become "
        f"{'wrong' if found.right[row] else 'right'}: logit gap {before} → {interval_}."
    )


def proof(row: int, one: Verification | None) -> str:
    """The result of retraining, or a note that the prediction is not verified."""
    outcome = None if one is None else one.of(row)
    if one is None or outcome is None or outcome.flips is None or outcome.flips_with is None:
        return (
            '<p class="dl-aside">Predicted, not verified: no model has been retrained for it.</p>'
        )
    good = outcome.flipped
    models = len(outcome.without)
    flips = round(outcome.flips.mean * models)
    summary = f"{flips} of {models} retrained models flip "
    summary += f"({SHARE.range(outcome.flips.low, outcome.flips.high)}); "
    summary += f"with all data {SHARE.text(outcome.flips_with.mean)} do"
    change = f"{test_examples.output} changed by {CHANGE.text(outcome.change)}"
    if outcome.low is not None and outcome.high is not None:
        change += f" ({CHANGE.range(outcome.low, outcome.high)})"
    if outcome.predicted is not None:
        change += f", predicted {CHANGE.text(outcome.predicted.mean)}"
    return (
        f'<p class="dl-result" data-kind="{"good" if good else "wrong"}" role="status">'
        f"{'Verified' if good else 'Refuted'}: {escape(summary)}.</p>"
        f'<p class="dl-aside">{escape(change[0].upper() + change[1:])}.</p>'
    )


def detail(row: int, study: StudyReader, here: Location) -> None:
    """The curve with its slider, the removal set, the verification, tags and notes."""
    now = read_query(study)
    size = int(found.size[row])
    ranked = found.removal(row, found.at_most)
    if not len(ranked):
        notice("Nothing to remove", "No training example supports this prediction.")
        return
    k = min(now.k or size or len(ranked), len(ranked))
    one = np.array([row])
    after, half_width = found.after(one)[0, : len(ranked)], found.half_width(one)[0, : len(ranked)]
    last = max(size, 1) - 1
    st.html(
        f'<p class="dl-says">{verdict(row, size, float(after[last]), float(half_width[last]))}</p>'
    )
    if found.calibrated:
        if len(ranked) > 1:
            st.session_state["removed"] = k
            st.slider(
                "Training examples removed",
                1,
                len(ranked),
                key="removed",
                on_change=keep,
                args=("removed", size),
            )
        error = TWO_SIDED_95 * float(found.logit_gap_deviation[row]) / found.checkpoints**0.5
        gaps = np.array([found.logit_gap[row], *after]), np.array([error, *half_width])
        st.html(logit_gap_curve(*gaps, k, size))
    if size:
        with st.container(horizontal=True, vertical_alignment="center", key="proof"):
            st.html(proof(row, verified(found, verifications(study, algorithm)).get(row)))
            if has_recipe(study, algorithm):
                verify_button(study, found, row)
    training = examples(study, "train")
    scores = found.score[row, :k]
    amounts = None if found.units is None else influences(found.units, scores, row)
    largest = float(np.abs(found.score[row]).max()) or 1.0
    test = str(test_examples.table["id"].iloc[row])
    sign: Any = "support" if found.right[row] else "oppose"
    group = Group(
        "Removal set",
        influence_cards(training, ranked[:k], scores, largest, here, test, amounts),
        title=f"The {k} removed" if k > 1 else "The removed example",
        words="Strongest first",
        sign=sign,
    )
    gallery(study, "train", [group], SIDE, "removal")
    removal_buttons(
        study,
        ranked[:k],
        f"{k:,} that the prediction of {test} depends on",
        here,
        "What if these were removed?",
    )
    tags_panel(study, algorithm, row)


def one_prediction(row: int, rows: np.ndarray) -> None:
    """One prediction in a frame, with buttons to its neighbors in the list `rows`."""
    place, before, after = position_in_slice(rows, row)
    id_ = str(test_examples.ids[row])
    with st.container(border=True, key="one"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.html(f'<h2 class="dl-heading">{escape(short(id_))}</h2>', width="content")
            if place is not None:
                where = f"<b>{place:,}</b> of {len(rows):,}"
                st.html(f'<div class="dl-where">{where}</div>', width="content")
            st.space("stretch")
            for name, other in (("Previous", before), ("Next", after)):
                st.button(
                    name,
                    disabled=other is None,
                    on_click=open_example,
                    args=(other,),
                    key=name.lower(),
                )
            if st.button("Explain", icon=":material/compare_arrows:", key="explain"):
                st.switch_page(EXPLAIN, query_params=location.parameters(test=id_))
            st.button(
                "Close",
                icon=":material/close:",
                key="close",
                on_click=go,
                kwargs={"test": None, "removed": None},
            )
        side, main = st.columns([0.24, 0.76], gap="large")
        with side:
            subject(study, algorithm, "test", row, test_examples.table.iloc[row].to_dict())
            for issue in next(iter(table["data_issues"][table["row"] == row]), ()):
                st.html(f'<p class="dl-aside"><b>{issue}</b>: {escape(RULES[issue])}</p>')
        with main:
            part(location, partial(detail, row))


# --- the page ----------------------------------------------------------------------------------

places = matching(table, query)
with st.container(horizontal=True, vertical_alignment="center"):
    st.html(
        title(
            "Brittle predictions",
            f"{len(table):,} of {len(found.logit_gap):,} are predicted to flip when at most "
            f"{query.at_most} training {kind} are removed",
        )
    )
    quality_badge(badge(study, algorithm, method))
    copy_link("copy")

progress(study)
if chosen is None and location.test is not None:
    warning([f"There is no test example “{short(location.test)}” here.{hint}"])
if chosen is not None:
    one_prediction(chosen, table["row"].to_numpy(np.int64)[places])

if not found.calibrated and wants_bank(study, algorithm) and read_quality(study, algorithm) is None:
    building(
        "Flips are predicted as soon as the subset runs are measured",
        lambda study: read_quality(study, algorithm) is not None,
        algorithm,
    )
    st.stop()
if not found.calibrated:
    notice(
        "The scores are not calibrated",
        "Training examples are ranked, but the effect of removing them cannot be predicted. "
        + calibration_advice(study, algorithm, method),
    )
    st.stop()
filters()
if not len(table):
    notice(
        f"No prediction flips when at most {query.at_most} are removed",
        "Allow a larger removal set, or choose another method above.",
    )
    st.stop()
with st.container(horizontal=True, vertical_alignment="center", key="toolbar"):
    st.html(f'<div class="dl-where"><b>{len(places):,}</b> listed</div>', width="content")
    st.space("stretch")
    if has_recipe(study, algorithm):
        verify_first(study, found, table["row"].to_numpy()[places])
    export(len(places))
try:
    check_recipe(study, algorithm)
except DataloupeError as error:
    aside(f"These predictions cannot be verified: {error}")
part(location, partial(listed, places))
