"""The findings of Overview: one row each, with its count, evidence, reliability and next step."""

from __future__ import annotations

from html import escape
from urllib.parse import urlencode

import streamlit as st

from dashboard.location import Location
from dashboard.read.findings import TITLES, Finding, found_by
from dashboard.workspaces import ADDRESSES
from engine.study.reader import StudyReader


def finding_list(study: StudyReader, location: Location) -> None:
    """Show every finding as soon as it is known: the first time, some take seconds."""
    st.html('<h2 class="dl-heading">Findings</h2>')
    for finder in TITLES:
        found = found_by(finder, study, location)
        if found is not None:
            st.html(_row(found, location))


def _row(found: Finding, location: Location) -> str:
    state = "missing" if found.count is None else "found" if found.count else "none"
    count = "–" if found.count is None else f"{found.count:,}"
    link = ""
    if found.action:
        query = urlencode(location.parameters(**found.parameters))
        href = escape(f"./{ADDRESSES[found.page]}?{query}")
        link = f'<a href="{href}">{escape(found.action)} →</a>'
    return (
        f'<div class="dl-finding" data-state="{state}"><b>{count}</b>'
        f"<h3>{escape(found.title)}</h3><p>{escape(found.evidence)}</p>"
        f"<small>{escape(found.reliability)}</small>{link}</div>"
    )
