"""Waiting for jobs, and finding the processes that belong to them."""

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
"""So long anything may take on a machine that does other things."""


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def ended(study: Study, number: int) -> Job:
    until(lambda: not job(study.root, number).active)
    return job(study.root, number)


def under_way(study: Study, number: int, done: int = 0) -> None:
    until(lambda: job(study.root, number).total > 0 and job(study.root, number).done >= done)


def processes_of(study: Study, number: int) -> list[int]:
    return processes(f"{home(study.root)}:{number}")


def runners(root: Path) -> list[int]:
    """Runners of a study, found by their command line."""
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
    os.kill(pid, signal.SIGKILL)
    until(lambda: "Z" in stat(pid) or not Path(f"/proc/{pid}").exists())


def kill_runner(study: Study) -> None:
    """Kill it and wait until all of it is gone, and with it its lock."""
    (runner,) = runners(study.root)
    os.kill(runner, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{runner}").exists())


def stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def end_everything(root: Path) -> None:
    """End a study's runner and the processes of its jobs, whatever a test has left."""
    for runner in runners(root):
        os.kill(runner, signal.SIGKILL)
    for number in range(1, 20):
        end_all(f"{home(root)}:{number}")
