"""Which groups the influence on one prediction comes from, from stored scores."""

from __future__ import annotations

import numpy as np
import streamlit as st

from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.study.group_sums import MOST_SCORES, GroupSums, columns_to_sum_by, sums_by_group
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_score_matrix


def stored_sums(study: StudyReader, row: int, algorithm: str, method: str) -> dict[str, GroupSums]:
    """The shares of every group, by column; nothing where reading the scores would take seconds."""
    if study.dataset.n_train > MOST_SCORES or not columns_to_sum_by(study):
        return {}
    files = [
        layout.dataset_file(study.root),
        layout.totals_file(study.root, algorithm, method),
        layout.table_file(study.root, "train", 0),
    ]
    return _stored_sums(row, algorithm, method, stamps_of(files), study)


@st.cache_resource(max_entries=256, show_spinner=False)
def _stored_sums(
    row: int, algorithm: str, method: str, stamps: Stamps, _study: StudyReader
) -> dict[str, GroupSums]:
    scores = read_score_matrix(_study, algorithm, method).rows(np.array([row]))
    return sums_by_group(_study, scores[0])
