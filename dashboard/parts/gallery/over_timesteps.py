"""Attributions against the timestep: a small chart for each training example and each group."""

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
from engine.applications.along import Along
from engine.store.quantities import SCORE, SHARE
from engine.study.output_names import NamedOutput
from engine.study.reader import StudyReader
from engine.study.trajectories import ranges_over

GROUPS = 5
SIDE = 56


def over_timesteps(
    study: StudyReader,
    row: int,
    training: Examples,
    sides: Sequence[np.ndarray],
    here: Location,
    kind: str,
) -> None:
    """Show the charts once somebody asks for them; nothing where outputs have no timesteps.

    Args:
        row: Of the test example.
        sides: The training rows that support and that oppose, strongest first.
    """
    outputs = ranges_over(study, row)
    if not outputs:
        return
    label = "Show how the influence changes from noise to the picture"
    icon = ":material/bar_chart:"
    if not asked_for("timesteps", "Over the timesteps", label, "over_timesteps", icon):
        return
    trains = strongest_of(sides)
    found = influence(
        study,
        row,
        [output.name for output in outputs],
        trains,
        here,
        "Scoring every range of timesteps (the first time loads the models)…",
        "The influence over the timesteps cannot be computed",
    )
    if found is None:
        return
    st.html(
        '<p class="dl-aside">Each bar is a score for a range of timesteps, from noise on the left '
        f"to the {kind} on the right, in units of the root mean square of all scores for these "
        "timesteps. By TRAK, live.</p>"
        f'<ol class="dl-multiples">{_examples(study, training, trains, found, outputs)}</ol>'
    )
    if groups := _groups(found, outputs):
        st.html(
            f'<p class="dl-aside">The share of the support that comes from the training {kind}s of '
            f'a group.</p><ol class="dl-multiples">{groups}</ol>'
        )


def _examples(
    study: StudyReader,
    training: Examples,
    trains: Sequence[int],
    found: Along,
    outputs: Sequence[NamedOutput],
) -> str:
    relative = found.scores / np.where(found.spread > 0, found.spread, 1.0)[:, None]
    largest = float(np.abs(relative).max(initial=0)) or 1.0
    records = training.table.iloc[list(trains)].to_dict("records")
    entries = []
    for place, (train, example) in enumerate(zip(trains, records, strict=True)):
        scores = relative[:, place].tolist()
        texts = [SCORE.text(score) for score in scores]
        chart = _chart(short(example["id"]), [one / largest for one in scores], texts, outputs)
        shown = picture_html(study, "train", train, example, SIDE)
        entries.append(f"<li>{shown}{chart}</li>")
    return "".join(entries)


def _groups(found: Along, outputs: Sequence[NamedOutput]) -> str:
    """Charts of the groups with most support, by the first column; empty if there is none."""
    if not found.by_group[0]:
        return ""
    column = next(iter(found.by_group[0]))
    sums = [one[column] for one in found.by_group]
    each = [dict(zip(one.names, one.support.tolist(), strict=True)) for one in sums]
    mean = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    names = sorted(mean, key=lambda name: -mean[name])[:GROUPS]
    largest = max(one[name] for one in each for name in names) or 1.0
    return "".join(
        "<li>"
        + _chart(
            short(name),
            [one[name] / largest for one in each],
            [SHARE.text(one[name]) for one in each],
            outputs,
        )
        + "</li>"
        for name in names
    )


def _chart(
    name: str, heights: Sequence[float], texts: Sequence[str], outputs: Sequence[NamedOutput]
) -> str:
    """Bars from −1 to 1, each with its text."""
    steps = [output.classes[0] for output in outputs]
    bars = "".join(
        f'<i data-sign="{"support" if height >= 0 else "oppose"}" style="--size:{abs(height):.3f}" '
        f'title="timesteps {step}: {text}"></i>'
        for height, text, step in zip(heights, texts, steps, strict=True)
    )
    said = "; ".join(f"{step}: {text}" for step, text in zip(steps, texts, strict=True))
    alt = escape(f"{name}, by timesteps: {said}", quote=True)
    return (
        f'<div class="dl-steps" role="img" aria-label="{alt}">{bars}</div>'
        f"<span><bdi>{escape(name)}</bdi></span>"
    )
