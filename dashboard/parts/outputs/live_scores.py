"""Explanations of outputs whose scores are not stored: computed live, in the kept worker."""

from __future__ import annotations

import streamlit as st

from dashboard.parts.layout.messages import notice
from dashboard.parts.outputs.wording import shortened
from dashboard.permissions import session
from dashboard.read.influences import Influences
from dashboard.read.output_scores import scores_of_output
from engine.applications.live import Attributed
from engine.store.errors import DataloupeError
from engine.study.example_outputs import live_missing
from engine.study.output_names import NamedOutput
from engine.study.reader import StudyReader


def live_scores(
    study: StudyReader, algorithm: str, row: int, output: NamedOutput
) -> Attributed | None:
    """The scores of an output of a test example; None where the reason they lack is shown."""
    heading = f"The scores of {shortened(output).title} cannot be computed"
    if reason := live_missing(study, algorithm):
        notice(heading, reason)
        return None
    words = "Computing these scores live (the first time, this loads the models)…"
    try:
        with st.spinner(words):
            return scores_of_output(study, algorithm, row, output.name, session())
    except DataloupeError as error:
        notice(heading, str(error), kind="error")
        return None


def influences_of(found: Attributed, k: int) -> Influences:
    """The k strongest influences of each sign."""
    return Influences(
        found.support[:k],
        found.support_scores[:k],
        found.oppose[:k],
        found.oppose_scores[:k],
        found.support_total,
        found.oppose_total,
    )
