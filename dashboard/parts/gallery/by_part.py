"""Which part of the output each of the strongest training examples acts through."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import streamlit as st

from dashboard.location import Location, go
from dashboard.names import short
from dashboard.parts.gallery.example_header import picture_html
from dashboard.parts.layout.messages import notice
from dashboard.permissions import session
from dashboard.read.along import influence_along
from dashboard.read.studies import Examples
from engine.applications.along import AlongQuery
from engine.store.errors import DataloupeError
from engine.store.quantities import SCORE
from engine.store.records import OutputChoice
from engine.study.output_names import output_parts
from engine.study.reader import StudyReader

PARAMETER = "over"
"""URL parameter: `parts` shows the table."""
SHOWN = 6
"""Examples of each sign."""
SIDE = 40


def by_part(
    study: StudyReader,
    row: int,
    training: Examples,
    sides: Sequence[np.ndarray],
    here: Location,
    kind: str,
) -> None:
    """Show the table once somebody asks for it; nothing where outputs have no parts.

    Args:
        row: Of the test example.
        sides: The training rows that support and that oppose, strongest first.
    """
    parts = output_parts(study)
    if not parts:
        return
    words = " or ".join(part.part for part in parts)
    st.html(f'<h2 class="dl-heading">Through {escape(words)}</h2>')
    if st.query_params.get(PARAMETER) != "parts":
        st.button(
            f"Show which side these training {kind}s act through",
            key="by_part",
            icon=":material/call_split:",
            on_click=go,
            kwargs={PARAMETER: "parts"},
        )
        return
    trains = tuple(int(one) for rows in sides for one in rows[:SHOWN])
    names = tuple(part.name for part in parts)
    try:
        with st.spinner("Scoring both sides (the first time loads the models)…"):
            query = AlongQuery(study.root, here.algorithm, row, names, trains)
            found = influence_along(study, query, session())
    except DataloupeError as error:
        notice("Scores of the sides cannot be computed", str(error), kind="error")
        return
    st.html(
        f'<p class="dl-aside">{escape(study.dataset.output.capitalize())} is the sum of its sides, '
        "and so are its scores before the soft threshold. By TRAK, live.</p>"
        f"{_table(study, training, trains, found.scores.T, parts, kind)}"
    )


def _table(
    study: StudyReader,
    training: Examples,
    trains: Sequence[int],
    scores: np.ndarray,
    parts: Sequence[OutputChoice],
    kind: str,
) -> str:
    """A row for each training example; `scores` is `[trains, parts]`."""
    largest = float(np.abs(scores).max(initial=0)) or 1.0
    records = training.table.iloc[list(trains)].to_dict("records")
    rows = []
    for train, example, each in zip(trains, records, scores.tolist(), strict=True):
        shown = picture_html(study, "train", train, example, SIDE)
        cells = "".join(
            f'<td data-sign="{"support" if score >= 0 else "oppose"}">'
            f"<span>{SCORE.text(score)}</span>"
            f'<i style="--size:{abs(score) / largest:.3f}"></i></td>'
            for score in each
        )
        name = f"<div>{shown}<bdi>{escape(short(example['id']))}</bdi></div>"
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col">{escape(part.part)}</th>' for part in parts)
    return (
        '<table class="dl-shares dl-parts" aria-label="Scores of each side">'
        f'<thead><tr><th scope="col">training {kind}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
