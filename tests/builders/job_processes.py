"""Wait for jobs, and find and kill their processes and runners."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.api import Study
from engine.running.jobs.database import home
from engine.running.jobs.process_tree import end_all, processes
from engine.running.jobs.queue import Job, job

SECONDS = 60.0
"""How long to wait for anything; a busy machine is slow."""


def until(condition: Callable[[], Any]) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {SECONDS:.0f} s"
        time.sleep(0.02)


def ended(study: Study, number: int) -> Job:
    """Wait until a job has ended, and return it."""
    until(lambda: not job(study.root, number).active)
    return job(study.root, number)


def under_way(study: Study, number: int, done: int = 0) -> None:
    """Wait until a job has reported progress, of at least `done` steps."""
    until(lambda: job(study.root, number).total > 0 and job(study.root, number).done >= done)


def processes_of(study: Study, number: int) -> list[int]:
    """Numbers of a job's processes."""
    return processes(f"{home(study.root)}:{number}")


def runners(root: Path) -> list[int]:
    """Process numbers of a study's runners, found by their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"engine.running.jobs.runner" in words and str(root.resolve()).encode() in words:
                found.append(int(entry.name))
    return found


def kill(pid: int) -> None:
    """Kill a process and wait until it is a zombie or gone."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: "Z" in stat(pid) or not Path(f"/proc/{pid}").exists())


def kill_runner(study: Study) -> None:
    """Kill the study's runner and wait until it is gone and its lock is released."""
    (runner,) = runners(study.root)
    os.kill(runner, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{runner}").exists())


def stat(pid: int) -> str:
    """State of a process, such as `S`; `Z` if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def end_everything(root: Path) -> None:
    """Kill the runner and all job processes that a test has left in a study."""
    for runner in runners(root):
        os.kill(runner, signal.SIGKILL)
    for number in range(1, 20):
        end_all(f"{home(root)}:{number}")
