"""The lock that allows one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator

from engine.store.errors import StoreError
from engine.store.io_errors import open_no_link
from engine.study.reader import StudyReader

LOCK = ".lock"


TRIES, PAUSE = 5, 0.02
"""`is_locked` holds the lock for an instant, which must not refuse a build."""


@contextlib.contextmanager
def locked(study: StudyReader) -> Iterator[None]:
    """Lock the study for writing; only one process at a time can."""
    with open_no_link(study.root / LOCK, "wb") as file:
        for left in reversed(range(TRIES)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if not left:
                    raise StoreError(
                        f"{study.root} is being built, or used for retraining, by another process. "
                        "Wait for it, or stop it first."
                    ) from error
                time.sleep(PAUSE)
        yield


def is_locked(study: StudyReader) -> bool:
    """Whether a process writes to the study now: a build, or a retraining."""
    try:
        with (study.root / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
