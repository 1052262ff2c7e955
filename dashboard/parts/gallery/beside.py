"""Two test examples side by side: what supports and opposes each, and what they share."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, TRAINING, Location, go, largest_k_of
from dashboard.parts.controls.examples_per_side import sides
from dashboard.parts.controls.selected_examples import select
from dashboard.parts.gallery.example_header import subject
from dashboard.parts.gallery.explanation import SIDE, influence_groups, is_mistake, opposers_first
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.outputs.wording import influence_words
from dashboard.parts.quality.quality_badge import quality_badge
from dashboard.read.influences import Influences, stored_influences
from dashboard.read.studies import Examples, badge, examples, typed_id
from dashboard.slice_parameters import MOST_PICKED
from engine.study.capabilities import has
from engine.study.example_outputs import read_known
from engine.study.output_names import default_output
from engine.study.reader import StudyReader

PARAMETER = "beside"


def choose_beside(study: StudyReader, after: int | None, found: Examples) -> None:
    """Show a control that names the example to show beside this one.

    Args:
        after: The next example of the slice, offered as one click.
    """
    with st.popover("Beside", icon=":material/splitscreen_right:", width="content"):
        st.text_input(
            "Id of another test example",
            key=PARAMETER,
            placeholder=str(found.ids[min(1, len(found.ids) - 1)]),
            on_change=_keep_id,
            args=(study,),
        )
        if after is not None:
            name = str(found.ids[after])
            st.button("The next one", key="beside_next", on_click=go, kwargs={PARAMETER: name})


def _keep_id(study: StudyReader) -> None:
    """Callback: the id in the URL does not depend on how it was typed."""
    go(**{PARAMETER: typed_id(study, "test", st.session_state[PARAMETER])})


def side_by_side(
    study: StudyReader, method: str, rows: tuple[int, int], here: Location, kind: str
) -> None:
    """Show the explanations of two test examples, and mark the training examples they share.

    Args:
        rows: Test rows.
        kind: `picture` or `text`.
    """
    found = examples(study, "test", here.algorithm)
    training = examples(study, "train")
    parts = [stored_influences(study, row, here.k, here.algorithm, method) for row in rows]
    each = [{*map(int, part.support), *map(int, part.oppose)} for part in parts]
    shared = each[0] & each[1]
    with st.container(horizontal=True, vertical_alignment="center", key="beside_bar"):
        quality_badge(badge(study, here.algorithm, method))
        st.html(
            f'<div class="dl-where" role="status"><b>{len(shared):,}</b> of the {len(each[0]):,} '
            f"and {len(each[1]):,} training {kind}s shown act on both. They are marked.</div>",
            width="content",
        )
        st.space("stretch")
        sides(here.k, largest_k_of(study))
        st.button(
            "Close side by side",
            icon=":material/close:",
            key="close_beside",
            on_click=go,
            kwargs={PARAMETER: None},
        )
    largest = max(
        float(np.abs(scores).max(initial=0))
        for part in parts
        for scores in (part.support_scores, part.oppose_scores)
    )
    columns = st.columns(2, gap="large")
    for place, (row, influences) in enumerate(zip(rows, parts, strict=True)):
        example = found.table.iloc[row].to_dict()
        label, test = str(example["label"]), str(example["id"])
        predicted = str(example.get("predicted", label))
        groups = influence_groups(
            training,
            influences,
            label,
            predicted,
            here,
            test,
            _effects(study, here.algorithm, row, training, influences),
            largest,
        )
        if is_mistake(example):
            groups = opposers_first(groups)
        with columns[place], st.container(key=f"beside_{place}"):
            about, acting = st.columns([0.36, 0.64], gap="medium")
        with about:
            subject(study, here.algorithm, "test", row, example)
            if place:
                st.page_link(
                    EXPLAIN,
                    label=f"Explain {test}",
                    icon=":material/compare_arrows:",
                    query_params=here.parameters(test=test),
                )
        with acting:
            gallery(
                study,
                "train",
                [_marked(group, shared) for group in groups],
                SIDE,
                f"beside_influences_{place}",
                lambda one, test=test: st.switch_page(  # type: ignore[misc]
                    TRAINING,
                    query_params=here.parameters(
                        test=test, train=str(training.table["id"].iloc[one])
                    ),
                ),
                selected=here.selected_train,
                most=MOST_PICKED,
                on_select=partial(select, split="train"),
                peeks=True,
            )


def _marked(group: Group, shared: set[int]) -> Group:
    """The group with a tag on each card that acts on both examples."""
    cards = [
        replace(card, tag="on both", mark="both") if card.row in shared else card
        for card in group.cards
    ]
    return replace(group, cards=cards)


def _effects(
    study: StudyReader, algorithm: str, row: int, training: Examples, found: Influences
) -> tuple[str, str] | None:
    """What both sides did to the output of a test example, in words; None where they pulled toward
    classes, which is said otherwise."""
    if has(study, "classes"):
        return None
    known = read_known(study, "test", row, algorithm)
    return influence_words(
        study, training, found.support, found.oppose, default_output(study), known
    )
