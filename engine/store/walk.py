"""Read folders whose content other threads and processes change at the same time.

What is removed while it is read counts as not there. `Path.glob`, `iterdir` and `stat` raise an
error then, so they are for folders that nobody else changes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, sorted; linked folders are not entered."""
    return sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)


def paths_in(folder: Path, pattern: str = "*") -> list[Path]:
    """What lies in a folder under names like `pattern`, sorted; nothing where it is missing."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path for path in folder.iterdir() if fnmatchcase(path.name, pattern))
    return []


def total_size(paths: Iterable[Path]) -> int:
    """Size of these files together, in bytes, without those that are gone."""
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            total += path.stat().st_size
    return total
