"""The quick report of an upload: its accuracy, and where it differs from the study's model."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, Location
from dashboard.names import short
from dashboard.parts.compare.letters import letter
from dashboard.parts.gallery.cards import test_cards
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.layout.blocks import aside, figures, heading
from dashboard.parts.layout.messages import warning
from dashboard.read.studies import Examples
from engine.exchange.uploads.report import QuickReport
from engine.store.quantities import ACCURACY, CORRELATION, OUTPUT
from engine.study.reader import StudyReader

SIDE = 84
SHOWN = 36


def quick_report(
    study: StudyReader,
    found: QuickReport,
    name: str,
    against: str,
    tests: Examples,
    location: Location,
    letters: str,
) -> None:
    """Show the report.

    Args:
        name: Of the upload.
        against: Name of the algorithm it is compared with.
        tests: The test examples, with that algorithm's predictions if it has any.
        letters: Which of the two is A: `ab` if it is the upload, else `ba`.
    """
    if found.warnings:
        warning(found.warnings)
    n = study.dataset.n_test
    of = f"1 checkpoint{'s' * (found.checkpoints > 1)}".replace("1", f"{found.checkpoints:,}", 1)
    shown = {}
    if found.accuracy is not None:
        shown[f"Accuracy of {short(name)}"] = ACCURACY.text(found.accuracy), f"mean of {of}"
    elif found.output is not None:
        shown[f"Mean output of {short(name)}"] = OUTPUT.text(found.output), f"mean of {of}"
    if found.their_output is not None:
        shown[f"Mean output of {short(against)}"] = (
            OUTPUT.text(found.their_output),
            "on the same examples",
        )
    if found.correlation is not None:
        shown["Correlation"] = CORRELATION.text(found.correlation), "of their outputs"
    if found.their_accuracy is not None and found.agreement is not None:
        shown[f"Accuracy of {short(against)}"] = (
            ACCURACY.text(found.their_accuracy),
            "on the same examples",
        )
        shown["Agreement"] = ACCURACY.text(found.agreement), f"{found.differing:,} of {n:,} differ"
    figures(shown)
    if found.by_group:
        heading("Accuracy by class")
        st.html(_by_group(found, name, against, letters))
    if found.their_by_group is None and found.their_output is None:
        aside(f"{short(against)} has no predictions yet to compare with.")
        return
    rows = np.array(found.rows[:SHOWN], np.int64)
    cards = [
        replace(
            card,
            note=f"{short(against)}: {theirs}",
            aside="",
            tag=mine,
            mark="both" if mine == card.name else "alone",
            hint=f"{card.hint}; {name} predicts {mine}",
            wrong=tests.has_outcomes and theirs != card.name,
        )
        for card, mine, theirs in zip(
            test_cards(tests, rows, location), found.predicted, found.their_predicted, strict=False
        )
    ]
    more = ""
    if found.differing > SHOWN:
        more = f"The {SHOWN} most confident of {found.differing:,}. "
    group = Group(
        "Test examples that they predict differently",
        cards,
        title="Where they differ",
        words=f"{more}Framed: the prediction of {short(name)}.",
        empty="They agree on every test example.",
    )
    gallery(
        study,
        "test",
        [group],
        SIDE,
        "differing",
        lambda row: st.switch_page(
            EXPLAIN, query_params=location.parameters(test=str(tests.ids[row]))
        ),
    )


def _by_group(found: QuickReport, name: str, against: str, letters: str) -> str:
    """HTML of two bars per class; the class whose accuracy differs most comes first."""
    theirs = found.their_by_group or {}
    order = sorted(found.by_group, key=lambda one: -abs(found.by_group[one] - theirs.get(one, 0)))
    entries = "".join(
        f'<li><div class="dl-name">{escape(short(group))}</div>'
        f"{_bar(found.by_group[group], name, letters[0])}"
        f"{_bar(theirs[group], against, letters[1]) if group in theirs else ''}</li>"
        for group in order
    )
    return f'<ol class="dl-pairs" role="list" aria-label="Accuracy by class">{entries}</ol>'


def _bar(value: float, name: str, kind: str) -> str:
    return (
        f'<div class="dl-pair" data-kind="{kind}"><span>{letter(kind)}{escape(short(name))}</span>'
        f'<span class="dl-track"><i style="width:{100 * value:.1f}%"></i></span>'
        f"<span>{escape(ACCURACY.text(value))}</span></div>"
    )
