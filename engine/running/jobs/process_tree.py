"""The processes of a job: found by a mark in their environment, and ended without exception.

Children inherit the mark, also those that lead sessions of their own or whose parent is gone, so
none is missed; a process number that was given to another process since is never taken for it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "DATALOUPE_JOB"
"""Environment variable that every process of a job carries."""
_PATIENCE = 10.0
"""Seconds until a process that was killed must be gone."""
_LOOKS = 20


def processes(mark: str) -> list[int]:
    """Process numbers that carry the mark."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in numbers if carries(pid, mark)]


def carries(pid: int, mark: str) -> bool:
    """Whether a process is there, is no zombie, and carries the mark."""
    return f"{MARK}={mark}".encode() in _environment(pid).split(b"\0")


def _environment(pid: int) -> bytes:
    """A process's environment; empty if it is gone, a zombie, the kernel's or another user's."""
    folder = Path(f"/proc/{pid}")
    try:
        for _ in range(_LOOKS):
            if found := (folder / "environ").read_bytes():
                return found
            (folder / "exe").readlink()  # only what runs a program has one
            time.sleep(0.001)  # it is just being executed, and has none for a moment
    except OSError:
        pass
    return b""


def ended(pid: int, mark: str, seconds: float) -> bool:
    """Wait for a process of the job to end, at most so long; whether it has."""
    with _opened(pid, mark) as handle:
        return handle is None or bool(select.select([handle], [], [], seconds)[0])


def end(pid: int, mark: str, grace: float) -> None:
    """Ask the process that leads the job to end, then end all of the job's processes.

    Args:
        grace: Seconds that it has to put things away.
    """
    with _opened(pid, mark) as handle:
        if handle is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
            select.select([handle], [], [], grace)
    end_all(mark)


def end_all(mark: str) -> None:
    """Kill all processes that carry the mark, and those they start meanwhile."""
    deadline = time.monotonic() + _PATIENCE
    while (found := processes(mark)) and time.monotonic() < deadline:
        for pid in found:
            with _opened(pid, mark) as handle, contextlib.suppress(ProcessLookupError):
                if handle is not None:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    select.select([handle], [], [], 1.0)


@contextlib.contextmanager
def _opened(pid: int, mark: str) -> Iterator[int | None]:
    """A handle of this very process; None if it is gone or is none of the job's."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield handle if carries(pid, mark) else None
    finally:
        os.close(handle)
