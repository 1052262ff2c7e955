"""Take training examples and the decisions about them away: as a file, or as a removal set for What
if and Unlearn."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import streamlit as st

from dashboard.location import Location
from dashboard.parts.controls.file_buttons import file_buttons
from dashboard.parts.curation.decision_words import tally
from dashboard.parts.removal.removal_buttons import removal_buttons
from dashboard.read.curation import Curation, curation, decisions
from engine.applications.brittle.table import Format, as_bytes
from engine.applications.curation.table import curation_table
from engine.study.decisions import Decision, rows_of
from engine.study.reader import StudyReader


def export_training(study: StudyReader, location: Location, rows: np.ndarray, which: str) -> None:
    """Show a button that opens the downloads of training examples, with all their columns."""
    found = curation(study, location.algorithm, location.method)
    with st.popover(f"Export {which}", icon=":material/download:", width="content", key="export"):
        content = partial(table_file, study, location, found, rows)
        file_buttons("training-set", content, key="rows_")


def export_decisions(
    study: StudyReader, location: Location, found: Curation, made: Mapping[int, Decision]
) -> None:
    """Show a button that opens the ways to take the decisions away."""
    with st.popover(
        f"Export {len(made):,} decisions" if len(made) != 1 else "Export 1 decision",
        icon=":material/download:",
        width="content",
        disabled=not made,
        key="export_decisions",
    ):
        st.html(f'<div class="dl-where">{tally(made.values())}</div>')
        file_buttons(
            "decisions",
            partial(decisions_file, study, location, found),
            ("csv", "json"),
            "decisions_",
            "Ids, file names, labels and decisions",
        )
        removed = rows_of(dict(made), "remove")
        if len(removed):
            removal_buttons(
                study,
                removed,
                f"{len(removed):,} removed in the review of labels",
                location,
                f"What if the {len(removed):,} removed were not there?",
            )


def decisions_file(
    study: StudyReader, location: Location, found: Curation, format: Format
) -> bytes:
    """All decisions as a file, most suspect label first."""
    made = decisions(study)
    rows = np.array(sorted(made), np.int64)
    if found.suspicion is not None:
        rows = rows[np.argsort(found.suspicion.log_odds[rows], kind="stable")]
    return table_file(study, location, found, rows, format)


def table_file(
    study: StudyReader, location: Location, found: Curation, rows: np.ndarray, format: Format
) -> bytes:
    """Some training examples with all that is known of them, as a file."""
    net = found.values.get("help")
    table = curation_table(study, rows, found.suspicion, decisions(study), net, location.method)
    return as_bytes(table, format)
