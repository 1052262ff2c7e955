"""Which part of the output each of the strongest training examples acts through."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import streamlit as st

from dashboard.location import Location
from dashboard.names import short
from dashboard.parts.gallery.example_header import picture_html
from dashboard.parts.gallery.on_request import asked_for, influence, strongest_of
from dashboard.read.studies import Examples
from engine.store.quantities import SCORE
from engine.store.records import OutputChoice
from engine.study.output_names import output_parts
from engine.study.reader import StudyReader

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
    title = f"Through {' or '.join(part.part for part in parts)}"
    label = f"Show which side these training {kind}s act through"
    if not asked_for("parts", title, label, "by_part", ":material/call_split:"):
        return
    trains = strongest_of(sides)
    found = influence(
        study,
        row,
        [part.name for part in parts],
        trains,
        here,
        "Scoring both sides (the first time loads the models)…",
        "Scores of the sides cannot be computed",
    )
    if found is None:
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
