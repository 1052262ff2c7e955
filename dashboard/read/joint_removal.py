"""The training examples that support a prediction most together, cached."""

from __future__ import annotations

import streamlit as st

from engine.applications.joint_removal import StrongestTogether, strongest_together
from engine.applications.live import live_stamps
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.study.reader import StudyReader


def supporters_together(
    study: StudyReader, algorithm: str, test: int, size: int
) -> StrongestTogether:
    """Up to `size` supporters of a test example; needs checkpoints kept for live queries."""
    checkpoints = range(study.checkpoints(algorithm))
    files = [
        *(layout.outputs_file(study.root, algorithm, m, "train") for m in checkpoints),
        *(layout.dual_file(study.root, algorithm, m) for m in checkpoints),
        *(layout.factors_file(study.root, algorithm, m) for m in checkpoints),
    ]
    stamps = live_stamps(study, algorithm) + stamps_of(files)
    return _supporters_together(algorithm, test, size, stamps, study)


@st.cache_resource(max_entries=32, show_spinner="Choosing …")
def _supporters_together(
    algorithm: str, test: int, size: int, stamps: Stamps, _study: StudyReader
) -> StrongestTogether:
    return strongest_together(_study, test, size, algorithm)
