"""Export a comparison: an HTML report, JSON, or CSV."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import streamlit as st

from engine.applications.modeldiff.report_file import as_csv, as_dict, as_html
from engine.study.reader import StudyReader


def comparison_export(study: StudyReader, about: dict[str, Any]) -> None:
    """Show a button that opens the downloads."""
    comparison = about["id"]
    files: tuple[tuple[str, str, str, Callable[[], str]], ...] = (
        ("Report (HTML)", "html", "text/html", lambda: as_html(study, comparison)),
        ("JSON", "json", "application/json", lambda: _json(study, comparison)),
        ("CSV", "csv", "text/csv", lambda: as_csv(study, comparison)),
    )
    with st.popover("Export", icon=":material/download:", width="content"):
        for name, suffix, mime, content in files:
            st.download_button(
                name,
                content,
                file_name=f"comparison-{comparison}.{suffix}",
                mime=mime,
                on_click="ignore",
                key=f"comparison_{suffix}",
            )
        st.caption("The report is one file that includes its examples.")


def _json(study: StudyReader, comparison: str) -> str:
    return json.dumps(as_dict(study, comparison), indent=2, ensure_ascii=False) + "\n"
