"""The same seeds, by models before unlearning, after it, and retrained, side by side."""

from __future__ import annotations

from html import escape

import numpy as np
import streamlit as st

from dashboard.parts.gallery.gallery import thumbnail_side
from dashboard.parts.layout.blocks import aside, figures, heading, table
from dashboard.read.audits import made_by_audit, title_of
from dashboard.read.picture_urls import data_uri
from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.made import SIDES, MadeByAudit
from engine.store.quantities import FEATURE_DISTANCE, SHARE
from engine.study.reader import StudyReader

SHOWN = 12
SIDE = 72
MODEL = 0
"""The model of each side whose pictures are shown."""
_LEAST = 0.005
"""Classes that less of the pictures look like, on every side, are left out."""


def made_by_models(study: StudyReader, audit: Audit, method: str) -> bool:
    """Show what retraining changes most; nothing, and False, where models make nothing."""
    found = made_by_audit(study, audit, method)
    if found is None:
        return False
    heading("The same seeds, before and after")
    far = {side: FEATURE_DISTANCE.text(found.distances[side].mean()) for side in SIDES}
    figures(
        {
            "Before": (far["before"], "mean distance from what retrained models make"),
            "Unlearned": (far["unlearned"], f"by {title_of(method)}"),
            "Retrained": (far["retrained"], "from each other: as close as can be expected"),
        }
    )
    order = np.argsort(-found.distances["before"], kind="stable")[:SHOWN].tolist()
    aside(
        "What models make from the same noise: before unlearning, after it, and retrained without "
        f"the forgotten pictures. The {len(order)} of {len(found.seeds)} seeds that retraining "
        "changes most, by the first model of each kind. Numbers: distance from retrained models, "
        f"before → unlearned ({FEATURE_DISTANCE.unit} of features, mean over models)."
    )
    side = thumbnail_side(study.dataset.cell, SIDE)
    entries = [_entry(found, place, side) for place in order]
    st.html(f'<ol class="dl-made dl-three">{"".join(entries)}</ol>')
    if found.looks:
        _looks(found)
    return True


def _entry(found: MadeByAudit, place: int, side: int) -> str:
    seed = int(found.seeds[place])
    shown = "".join(
        f'<img src="{data_uri(found.pictures[one][MODEL, place])}" '
        f'alt="Seed {seed}, {one}" style="width:{side}px">'
        for one in SIDES
    )
    before, after = (
        FEATURE_DISTANCE.text(found.distances[one][place]) for one in ("before", "unlearned")
    )
    kind = f", {escape(found.classes[place])}" if found.classes else ""
    return f"<li>{shown}<span><b>{before} → {after}</b><br>seed {seed}{kind}</span></li>"


def _looks(found: MadeByAudit) -> None:
    looks = found.looks
    rows = [
        [name, *(SHARE.text(looks[side][name]) for side in SIDES)]
        for name in looks["before"]
        if max(looks[side][name] for side in SIDES) >= _LEAST
    ]
    aside(
        "What they look like: the share of the pictures of all models of a kind whose nearest "
        "training pictures, the five nearest pixel by pixel, are most often of a class."
    )
    table("What pictures look like", ("Class", "Before", "Unlearned", "Retrained"), rows)
