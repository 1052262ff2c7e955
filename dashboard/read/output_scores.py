"""Scores of outputs that are not stored, asked of the worker that holds the models, and kept."""

from __future__ import annotations

import streamlit as st

from dashboard.read.live_queries import in_explainer
from engine.applications.live import Attributed, StoredQuery, explain_stored, live_stamps
from engine.applications.live.explaining import explain_output, live_explanation
from engine.store.cache import Stamps
from engine.store.records import Explanation
from engine.study.example_outputs import read_known
from engine.study.explanations import explain
from engine.study.output_names import resolve_output
from engine.study.reader import StudyReader


def scores_of_output(
    study: StudyReader, algorithm: str, row: int, output: str, who: str
) -> Attributed:
    """The scores of an output of a test example.

    Raises:
        DataloupeError: The study keeps nothing for live queries, a limit is exceeded, or the
            worker is busy.
    """
    query = StoredQuery(study.root, algorithm, "test", row, output)
    return _scores(query, live_stamps(study, algorithm), who)


def explanation_of_output(
    study: StudyReader, row: int, k: int, algorithm: str, method: str, output: str | None, who: str
) -> Explanation:
    """What `Study.explain` gives, without importing torch. Raises as `scores_of_output`."""
    stored = stored_explanation(study, row, k, algorithm, method, output)
    if stored is not None:
        return stored
    assert output is not None  # scores of the default output are stored
    query = StoredQuery(study.root, algorithm, "test", row, output)
    return live_explanation(study, query, scores_of_output(study, algorithm, row, output, who), k)


def stored_explanation(
    study: StudyReader, row: int, k: int, algorithm: str, method: str, output: str | None
) -> Explanation | None:
    """What `Study.explain` gives, from stored scores; None if there are none of this output."""
    if output is None:
        return explain(study, row, k, algorithm, method)
    known = read_known(study, "test", row, algorithm)
    if known.is_stored(study, resolve_output(study, output)):
        return explain_output(study, row, output, k, algorithm, method)
    return None


@st.cache_resource(max_entries=256, show_spinner=False)
def _scores(query: StoredQuery, stamps: Stamps, _who: str) -> Attributed:
    return in_explainer(explain_stored, query, _who)
