"""A control that takes files, which the server takes from this page only."""

from __future__ import annotations

import re
from typing import Any

import streamlit as st

_LIMITS: dict[str, int] = {}
"""Key of an uploader without its number → the largest file that it takes, in MiB."""


def uploader(text: str, *, key: str, megabytes: int, **options: Any) -> Any:
    """Show a file uploader; the arguments are those of `st.file_uploader`.

    Args:
        key: A name, or a name and a number. Uploaders of one name take equally large files.
        megabytes: The largest file.
    """
    _LIMITS[_name(key)] = megabytes
    return st.file_uploader(text, key=key, max_upload_size=megabytes, **options)


def largest_bytes(key: str) -> int:
    """The largest file that the uploader with this key takes; 0 if there is none."""
    return _LIMITS.get(_name(key), 0) * 2**20


def _name(key: str) -> str:
    return re.sub(r"_?\d+$", "", key)
