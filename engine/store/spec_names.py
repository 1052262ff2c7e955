"""Names of algorithms and methods, which become names of folders."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator


def checked_name(name: str) -> str:
    """The name, if a folder can be called so; raises ValueError, with what is allowed, if not."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(
            "names have up to 64 letters, digits, - and _, and begin with a letter or digit"
        )
    return name


def is_upload_id(name: str) -> bool:
    """Whether a name is like one that an upload gets, on any file system."""
    return name.casefold().startswith("upload-")


def checked_algorithm_name(name: str) -> str:
    """The name of a learning algorithm, which no upload can get; raises ValueError if not."""
    if is_upload_id(checked_name(name)):
        raise ValueError("names that begin with upload- are those of uploaded models")
    return name


Name = Annotated[str, AfterValidator(checked_algorithm_name)]
"""Names become folder names, so they contain no path separators."""
