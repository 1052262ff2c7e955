"""Find and end all processes of a job by a mark in their environment.

Every child inherits the mark, even if it starts a new session or its parent has exited, so none is
missed. A reused process number is not mistaken for a process of the job, because its environment
lacks the mark.
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
_KILL_SECONDS = 10.0
"""Longest time to keep killing processes."""
_READS = 20
"""Number of times to read an empty environment."""


def processes(mark: str) -> list[int]:
    """Numbers of the processes that carry the mark."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in numbers if carries(pid, mark)]


def carries(pid: int, mark: str) -> bool:
    """Whether a process exists, is not a zombie, and carries the mark."""
    return f"{MARK}={mark}".encode() in _environment(pid).split(b"\0")


def _environment(pid: int) -> bytes:
    """A process's environment; empty if it is gone, a zombie, a kernel thread or another user's."""
    folder = Path(f"/proc/{pid}")
    try:
        for _ in range(_READS):
            if found := (folder / "environ").read_bytes():
                return found
            (folder / "exe").readlink()  # fails for zombies and kernel threads
            time.sleep(0.001)  # during execve, the environment is empty for a moment
    except OSError:
        pass
    return b""


def ended(pid: int, mark: str, seconds: float) -> bool:
    """Wait up to `seconds` for a process of the job to end; return whether it has."""
    with _opened(pid, mark) as handle:
        return handle is None or bool(select.select([handle], [], [], seconds)[0])


def end(pid: int, mark: str, grace: float) -> None:
    """Send SIGTERM to the job's main process and its group, then kill all processes of the job.

    Args:
        grace: Seconds to wait for the main process to end on its own.
    """
    with _opened(pid, mark) as handle:
        if handle is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
            select.select([handle], [], [], grace)
    end_all(mark)


def end_all(mark: str) -> None:
    """Kill all processes that carry the mark, including any that they start meanwhile."""
    deadline = time.monotonic() + _KILL_SECONDS
    while (found := processes(mark)) and time.monotonic() < deadline:
        for pid in found:
            with _opened(pid, mark) as handle, contextlib.suppress(ProcessLookupError):
                if handle is not None:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    select.select([handle], [], [], 1.0)


@contextlib.contextmanager
def _opened(pid: int, mark: str) -> Iterator[int | None]:
    """A pidfd of the process; None if it is gone or does not belong to the job."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield handle if carries(pid, mark) else None
    finally:
        os.close(handle)
