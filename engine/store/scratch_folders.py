"""Temporary folders that are removed by whoever comes next if their process was killed.

A folder holds a file that its process keeps locked. The system frees the lock when the process
ends, however it ends, so a folder without that lock was left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import TextIO

from engine.store.walk import paths_in

ALIVE = "alive"
"""Name of the locked file."""


def make_scratch_folder(parent: Path, prefix: str) -> tuple[Path, TextIO]:
    """Make a folder; it counts as in use until the returned file is closed."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        with contextlib.suppress(FileNotFoundError):
            alive = (folder / ALIVE).open("w")
            fcntl.flock(alive, fcntl.LOCK_EX)
            if (folder / ALIVE).exists():
                return folder, alive
            alive.close()
        # Somebody took it for left behind, before it was locked.


def remove_left_behind(parent: Path, prefix: str) -> None:
    """Remove the folders of processes that were killed."""
    # Not ours to remove: in use, of another user, or no such folder.
    in_use = contextlib.suppress(
        BlockingIOError, FileNotFoundError, NotADirectoryError, PermissionError
    )
    for folder in paths_in(parent, f"{prefix}*"):
        with contextlib.suppress(OSError):
            folder.rmdir()  # an empty one: its process was killed before it could lock a file
        with in_use, (folder / ALIVE).open() as alive:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
