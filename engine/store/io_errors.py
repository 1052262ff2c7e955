"""What the operating system refused, in one line: a full disk, a read-only folder, a name too long.

Whatever writes a file of a study does it within `atomic` (`engine.store.files`) or `writing_to`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from engine.store.errors import DataloupeError, MissingFile, StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def reason(error: OSError) -> str:
    """What went wrong, in the words of the operating system."""
    return (error.strerror or str(error) or type(error).__name__).rstrip(".")


def io_text(error: OSError) -> str:
    """One line for an error that nothing else has explained."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if _is_path(name)]
    where = " and ".join(names)
    return f"{where}: {reason(error)}." if where else f"{reason(error)}."


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes)


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Report in one line where writing failed, for files that people save or export."""
    try:
        yield
    except OSError as error:
        raise DataloupeError(f"{path} cannot be written: {reason(error)}.") from error


@contextlib.contextmanager
def writing_store(path: Path) -> Iterator[None]:
    """Report in one line where writing a file of a study failed."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(
                f"The disk is full: {path} could not be written. Nothing is lost; free some space "
                "and run the same command again, which continues from here."
            ) from error
        raise StoreError(f"{path} cannot be written: {reason(error)}.") from error


def open_no_link(path: Path, mode: Literal["wb", "ab"]) -> BinaryIO:
    """Open a lock or a log of a study for writing, but follow no link.

    Other files are replaced by renaming, which follows none. A study that somebody sent could
    otherwise lead us to write into any file of its reader.

    Raises:
        StoreError: It is a link, or cannot be written.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o666)

    with writing_store(path):
        return open(path, mode, opener=opener)  # `Path.open` takes no opener


@contextlib.contextmanager
def reading_store(path: Path) -> Iterator[None]:
    """Report in one line which file of a study is missing or cannot be read."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFile(f"{path} is missing. `dataloupe build` makes it again.") from error
    except OSError as error:
        if error.errno is None:  # raised by a library that could read the file, but not its content
            raise
        raise StoreError(f"{path} cannot be read: {reason(error)}.") from error
