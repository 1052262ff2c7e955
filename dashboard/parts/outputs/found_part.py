"""What models find among the test pairs: for a part of one's own, or instead of a pair's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, Location
from dashboard.names import short
from dashboard.parts.gallery.cards import test_cards
from dashboard.parts.gallery.example_header import picture_html
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.read.studies import Examples, examples
from engine.applications.found_instead import found_instead
from engine.applications.live import Completed
from engine.store.quantities import SIMILARITY
from engine.store.records import View
from engine.study.reader import StudyReader
from engine.study.retrieval import has_ranks

Open = Callable[[int], None]

SHOWN = 5
"""Cards of what is found; the control has all."""
SIDE = 112
NAMES: dict[View, str] = {"picture": "picture", "text": "caption"}
"""What the parts of a pair are called."""


def choose_found(study: StudyReader, completed: Completed) -> None:
    """Show the found part that is explained, and a control that chooses another one."""
    found = examples(study, "test")
    name, rows = NAMES[completed.part], completed.rows.tolist()
    texts = dict(zip(rows, found.table["text"].iloc[rows], strict=True))
    fits = dict(zip(rows, completed.fits.tolist(), strict=True))
    st.session_state["live_completed_by"] = completed.by
    st.selectbox(
        f"Explained with the {name}",
        rows,
        format_func=lambda row: f"{short(texts[row])} · {SIMILARITY.text(fits[row])}",
        key="live_completed_by",
        help=f"The test pairs whose {name} fits best, by the mean cosine of the checkpoints, among "
        f"{completed.candidates:,}.",
    )
    if completed.part == "picture":
        example = found.table.iloc[completed.by].to_dict()
        shown = picture_html(study, "test", completed.by, example)
        st.html(f'<div class="dl-subject">{shown}</div>')


def show_found(study: StudyReader, completed: Completed, location: Location) -> None:
    """Show the test pairs whose part fits best; each opens its own explanation."""
    found = examples(study, "test", location.algorithm)
    rows, name = completed.rows[:SHOWN], NAMES[completed.part]
    cards = [
        replace(
            card,
            score=SIMILARITY.text(fit),
            bar=max(0.0, float(fit)),
            tag="explained here" if card.row == completed.by else None,
            mark="both" if card.row == completed.by else None,
        )
        for card, fit in zip(test_cards(found, rows, location), completed.fits, strict=False)
    ]
    group = Group(
        f"Test pairs whose {name} fits best",
        cards,
        title=f"The {name}s that models find",
        words=f"Of {completed.candidates:,} test pairs, those whose {name} fits best, by the mean "
        "cosine of the checkpoints.",
        sign="similar",
    )
    gallery(
        study,
        "test",
        [group],
        SIDE,
        "found_parts",
        lambda row: st.switch_page(
            EXPLAIN, query_params=location.parameters(test=str(found.table["id"].iloc[row]))
        ),
    )


def show_found_instead(
    study: StudyReader, row: int, found: Examples, location: Location, open_example: Open
) -> None:
    """Show the test pairs that a test pair finds instead of itself, if it does."""
    if not has_ranks(study, location.algorithm):
        return
    instead = found_instead(study, row, location.algorithm)
    if not instead:
        return
    groups = [
        Group(
            f"The {NAMES[one.part]} that is found instead",
            [
                replace(card, score=SIMILARITY.text(one.other), note="", wrong=False)
                for card in test_cards(found, np.array([one.row]), location)
            ],
            title=f"The {NAMES[one.part]} that is found instead",
            words=f"Cosine {SIMILARITY.text(one.other)}; {SIMILARITY.text(one.own)} with its own.",
        )
        for one in instead
    ]
    for number, group in enumerate(groups):
        gallery(study, "test", [group], SIDE, f"found_instead_{number}", open_example)
