"""One test example under two algorithms: supporting and opposing examples of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from html import escape
from typing import Any

import numpy as np
import streamlit as st

from dashboard.location import TRAINING, Location, go, largest_k_of
from dashboard.names import short
from dashboard.parts.compare.letters import lettered
from dashboard.parts.controls.examples_per_side import sides
from dashboard.parts.controls.selected_examples import select
from dashboard.parts.controls.selection_bar import bar_of_chosen
from dashboard.parts.curation.decision_export import export_training
from dashboard.parts.gallery.cards import influence_cards
from dashboard.parts.gallery.example_header import only_example, only_facts
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.layout.blocks import aside
from dashboard.parts.quality.quality_badge import quality_badge
from dashboard.read.studies import Examples, badge, examples, requested_row, typed_id
from dashboard.slice_parameters import MOST_PICKED
from engine.store.quantities import numbers_mean
from engine.study.counterfactuals import read_units
from engine.study.methods import method_title
from engine.study.rankings import find_influences, influences
from engine.study.reader import StudyReader

SIDE = 84


def side_by_side(study: StudyReader, about: dict[str, Any], location: Location) -> None:
    """Show the chosen test example once, and what both algorithms make of it."""
    row, hint = _row(study, about, location)
    if hint is not None:
        aside(f"There is no test example “{short(location.test)}” here.{hint}")
    tests = {key: examples(study, "test", about[key]["algorithm"]) for key in ("a", "b")}
    shown, *columns = st.columns([0.24, 0.38, 0.38], gap="large")
    with shown:
        only_example(study, "test", row, tests["a"].table.iloc[row].to_dict())
    for column, key in zip(columns, ("a", "b"), strict=True):
        algorithm = about[key]["algorithm"]
        with column:
            st.html(f'<h2 class="dl-heading">{lettered(key, about[key]["name"])}</h2>')
            quality_badge(badge(study, algorithm, about[key]["method"]))
            only_facts(study, algorithm, "test", row, tests[key].table.iloc[row].to_dict())
    found = {
        key: find_influences(study, row, location.k, about[key]["algorithm"], about[key]["method"])
        for key in ("a", "b")
    }
    training = examples(study, "train")
    bar_of_chosen(study, location, "train", training, partial(export_training, study, location))
    for place, sign, title in ((0, "support", "Supporting"), (2, "oppose", "Opposing")):
        test = str(tests["a"].ids[row])
        _both(study, about, training, found, place, sign, title, row, test, location)


def _both(
    study: StudyReader,
    about: dict[str, Any],
    training: Examples,
    found: Mapping[str, tuple[np.ndarray, ...]],
    place: int,
    sign: Any,
    title: str,
    row: int,
    test: str,
    location: Location,
) -> None:
    """Show the training examples of one sign for both; shared ones are marked."""
    rows = {key: found[key][place].tolist() for key in found}
    shared = set(rows["a"]) & set(rows["b"])
    fewest = min(len(rows["a"]), len(rows["b"]))
    words = escape(f"{len(shared):,} of {fewest:,} {title.lower()} examples are in both.")
    st.html(f'<p class="dl-says" role="status">{words}</p>')
    groups = []
    for key in ("a", "b"):
        scores = found[key][place + 1]
        largest = float(np.abs(np.concatenate([found[key][1], found[key][3]])).max(initial=0))
        units = read_units(study, about[key]["algorithm"], about[key]["method"])
        amounts = None if units is None else influences(units, scores, row)
        cards = influence_cards(
            training, found[key][place], scores, largest or 1.0, location, test, amounts
        )
        name = short(about[key]["name"])
        groups.append(
            Group(
                f"{title} training examples of {name}",
                [
                    replace(card, tag="in both", mark="both") if card.row in shared else card
                    for card in cards
                ],
                title=f"{title} in {name}",
                words=numbers_mean(
                    training.output,
                    method_title(study, about[key]["algorithm"], about[key]["method"]),
                    units is not None,
                ),
                sign=sign,
                empty="None.",
            )
        )
    gallery(
        study,
        "train",
        groups,
        SIDE,
        f"both_{sign}",
        lambda row: st.switch_page(
            TRAINING, query_params=location.parameters(test=test, train=str(training.ids[row]))
        ),
        selected=location.selected_train,
        most=MOST_PICKED,
        on_select=partial(select, split="train"),
    )


def choose_example(study: StudyReader, about: dict[str, Any], location: Location) -> None:
    """Controls for the test example: its id, the previous and next one, and how many of each
    side."""
    ids = study.table("test")["id"].astype(str)
    row, _ = _row(study, about, location)
    st.session_state["compared_test"] = ids.iloc[row]
    st.text_input(
        "Test example: an id, or a row such as #17",
        key="compared_test",
        on_change=lambda: go(test=typed_id(study, "test", st.session_state["compared_test"])),
        label_visibility="collapsed",
        width=180,
    )
    for name, other in (("Previous", row - 1), ("Next", row + 1)):
        st.button(
            name,
            key=f"{name.lower()}_compared",
            disabled=not 0 <= other < len(ids),
            on_click=go,
            kwargs={"test": ids.iloc[other] if 0 <= other < len(ids) else None},
        )
    sides(location.k, largest_k_of(study))


def _row(study: StudyReader, about: dict[str, Any], location: Location) -> tuple[int, str | None]:
    """The test example in the URL, or the one with the largest projection.

    Returns:
        Its row; and a hint if the URL names one that does not exist.
    """
    row, hint = requested_row(study, "test", location.test)
    if row is not None:
        return row, None
    first = next(iter(about["directions"]["a"] or about["directions"]["b"]), None)
    return (first["tests"][0] if first else 0), None if location.test is None else hint
