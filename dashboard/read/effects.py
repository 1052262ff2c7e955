"""The predicted effect of removing a saved set, cached."""

from __future__ import annotations

import streamlit as st

from engine.attribution.evaluation.counterfactual import Counterfactual
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.study.counterfactuals import predict_counterfactual
from engine.study.reader import StudyReader
from engine.study.removal_sets import RemovalSet


def counterfactual(
    study: StudyReader, algorithm: str, method: str, removed: RemovalSet, by: str | None = None
) -> Counterfactual:
    """The predicted effect of removing a saved set.

    Args:
        by: Column whose groups the effect is averaged over; None: the classes.
    """
    files = [
        layout.search_file(study.root, algorithm, method),
        layout.quality_file(study.root, algorithm),
        layout.predicted_file(study.root, algorithm, method),
        layout.predictions_file(study.root, algorithm, "test"),
        layout.dataset_file(study.root),
        *(
            layout.outputs_file(study.root, algorithm, checkpoint, "test")
            for checkpoint in range(study.checkpoints(algorithm))
        ),
    ]
    return _counterfactual(algorithm, method, removed.key, by, stamps_of(files), study, removed)


@st.cache_resource(max_entries=16, show_spinner=False)
def _counterfactual(
    algorithm: str,
    method: str,
    key: str,
    by: str | None,
    stamps: Stamps,
    _study: StudyReader,
    _removed: RemovalSet,
) -> Counterfactual:
    return predict_counterfactual(_study, _removed.rows.tolist(), algorithm, method, by)
