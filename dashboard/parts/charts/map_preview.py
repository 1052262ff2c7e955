"""The example under the mouse on a map, as a picture or a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.parts.gallery.gallery import thumbnail_side
from dashboard.read.picture_urls import sprite_url
from engine.data import SPRITES_PER_SHEET
from engine.data.thumbnails import COLUMNS
from engine.store.layout import SPLITS
from engine.study.capabilities import has
from engine.study.reader import StudyReader

SIDE = 140
_FILE = Path(__file__)


def map_preview(study: StudyReader, chart: str) -> None:
    """Show the example under the mouse.

    Args:
        chart: Key of the container of the chart, whose points have (split, row, text).
    """
    pictures = has(study, "pictures")
    _component()(
        key=f"preview_{chart}",
        data={
            "chart": chart,
            "sheets": {split: sprite_url(study, split) for split in SPLITS} if pictures else None,
            "side": thumbnail_side(study.dataset.cell, SIDE),
            "perSheet": SPRITES_PER_SHEET,
            "columns": COLUMNS,
        },
    )


def _component() -> Any:
    return st.components.v2.component(
        "dataloupe_map_preview",
        html='<div class="map-preview" hidden></div>\n',
        css=_FILE.with_suffix(".css").read_text(encoding="utf-8"),
        js=_FILE.with_suffix(".js").read_text(encoding="utf-8"),
    )
