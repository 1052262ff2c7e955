"""How well scores predict one test example, beside all of them and the noise ceiling."""

from __future__ import annotations

from html import escape

import streamlit as st

from dashboard.parts.charts.interval_bars import Bar, intervals
from engine.store.text import counted
from engine.study.measured_quality import read_own_lds
from engine.study.methods import method_title, read_quality
from engine.study.reader import StudyReader

TITLE = "How well the scores predict (LDS)"


def own_quality(study: StudyReader, algorithm: str, method: str, row: int) -> None:
    """Show the LDS of a test example, of all, and the ceiling; nothing where it is not measured."""
    own, quality = read_own_lds(study, row, algorithm, method), read_quality(study, algorithm)
    if own is None or quality is None:
        return
    (lds, runs), title = own, method_title(study, algorithm, method)
    bars = [
        Bar("This example", lds, f"over {counted(runs, 'subset run')} only: a rough figure"),
        Bar("All test examples", quality.methods[method].lds, f"mean, {title}"),
    ]
    if quality.ceiling is not None:
        words = "what perfect predictions would reach, over all"
        bars.append(Bar("Noise ceiling", quality.ceiling, words, baseline=True))
    st.html(f'<div class="dl-standing"><h2>{escape(TITLE)}</h2>{intervals(bars, TITLE)}</div>')
