"""The training examples nearest in their values to a test example, kept while the data stay."""

from __future__ import annotations

import streamlit as st

from engine.study.nearest_values import Nearest, nearest_in_values
from engine.study.reader import StudyReader


def nearest(study: StudyReader, row: int) -> Nearest | None:
    """As `engine.study.nearest_values.nearest_in_values`."""
    return _nearest(str(study.root), study.dataset.fingerprint, row, study)


@st.cache_resource(max_entries=256, show_spinner=False)
def _nearest(root: str, fingerprint: str, row: int, _study: StudyReader) -> Nearest | None:
    return nearest_in_values(_study, row)
