"""Walk folders that other processes change at the same time."""

from __future__ import annotations

import os
from pathlib import Path


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, sorted; linked folders are not entered.

    `Path.rglob` raises an error when a folder is removed while it is read. Here such a folder, or
    one that does not exist, has no files.
    """
    return sorted(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
