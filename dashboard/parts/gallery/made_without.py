"""The same seeds, by models trained with and without some examples, side by side."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard.parts.gallery.gallery import thumbnail_side
from dashboard.parts.layout.blocks import aside
from dashboard.read.picture_urls import data_uri
from engine.applications.verification import Verification
from engine.applications.verification.made import read_made
from engine.store.quantities import CHANGE, DISTANCE
from engine.store.text import counted
from engine.study.reader import StudyReader

SHOWN = 12
SIDE = 84
MODEL = 0
"""The model of each side whose pictures are shown; the change is the mean over all."""


def made_without(study: StudyReader, one: Verification) -> None:
    """Show what changed most; nothing where models make nothing."""
    found = read_made(study, one)
    if found is None:
        return
    change = found.change
    order = np.argsort(-change, kind="stable")[:SHOWN].tolist()
    st.html('<h3 class="dl-heading">The same seeds, with and without them</h3>')
    aside(
        "What models make from the same noise. Left: trained with all data. Right: without these "
        f"{len(one.removed):,}. The {len(order)} of {len(change)} seeds that change most, by the "
        f"first model. Numbers: {DISTANCE.unit}, mean of {counted(one.seeds, 'pair')} of models."
    )
    rows = _rows_of_first(study)
    entries, side = [], thumbnail_side(study.dataset.cell, SIDE)
    for place in order:
        seed = int(found.seeds[place])
        pair = (found.with_all[MODEL, place], found.without[MODEL, place])
        shown = "".join(
            f'<img src="{data_uri(pixels)}" alt="Seed {seed}, {words}" style="width:{side}px">'
            for pixels, words in zip(pair, ("with all data", "without them"), strict=True)
        )
        about = [f"<b>{DISTANCE.text(change[place])}</b> seed {seed}"]
        outcome = one.of(rows[seed]) if seed in rows else None
        if outcome is not None:
            about.append(f"denoising {CHANGE.text(outcome.change)}")
            if outcome.predicted is not None:
                about.append(f"predicted {CHANGE.text(outcome.predicted.mean)}")
        entries.append(f"<li>{shown}<span>{'<br>'.join(about)}</span></li>")
    st.html(f'<ol class="dl-made">{"".join(entries)}</ol>')


def _rows_of_first(study: StudyReader) -> dict[int, int]:
    """Seed → row of the test example that the first checkpoint made from it."""
    table = study.table("test")
    first = ((table["origin"] == "made") & (table["checkpoint"] == MODEL)).to_numpy()
    rows = np.flatnonzero(first)
    return {int(seed): int(row) for seed, row in zip(table["seed"].iloc[rows], rows, strict=True)}
