"""The lock that allows one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from engine.store.errors import StoreError
from engine.store.io_errors import open_no_link
from engine.study.reader import StudyReader


@contextlib.contextmanager
def locked(study: StudyReader) -> Iterator[None]:
    """Lock the study for writing; only one process at a time can."""
    with open_no_link(study.root / ".lock", "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"{study.root} is being built, or used for retraining, by another process. Wait "
                "for it, or stop it first."
            ) from error
        yield
