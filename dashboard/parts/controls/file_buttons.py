"""One button for each format of a file, made when it is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import streamlit as st

from engine.applications.brittle.table import Format

TITLES: dict[Format, str] = {"csv": "CSV", "json": "JSON", "parquet": "Parquet"}
MIME: dict[Format, str] = {
    "csv": "text/csv",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}


def file_buttons(
    name: str,
    content: Callable[[Format], str | bytes],
    formats: Sequence[Format] = tuple(MIME),
    key: str = "",
    help: str | None = None,
) -> None:
    """Show the buttons in a row.

    Args:
        name: Of the file, without its suffix.
        content: The file in a format.
        key: Begins the keys of the buttons, where a page has several rows of them.
    """
    with st.container(horizontal=True):
        for format in formats:
            st.download_button(
                TITLES[format],
                partial(content, format),
                file_name=f"{name}.{format}",
                mime=MIME[format],
                on_click="ignore",
                key=f"{key}{format}",
                help=help,
            )
