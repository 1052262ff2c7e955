"""Job kinds for tests: they count, sleep, print, fail, ignore signals or kill their runner.

`tests/site` registers them in the runner's and the jobs' processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine.api import Study
from engine.running.jobs.kinds import Kind
from engine.running.processes import run_jobs
from engine.running.progress import Report
from engine.store.errors import DataloupeError

CHECK = "tests.builders.job_kinds:check"
TEST_KINDS = {
    name: Kind(f"Test: {name}", CHECK, f"tests.builders.job_kinds:{name}")
    for name in (
        "count",
        "ignore_sigterm",
        "sleep_in_pool",
        "refuse",
        "crash",
        "kill_runner",
        "print_lines",
    )
}


def check(study: Study, parameters: dict[str, Any]) -> dict[str, Any]:
    if "wrong" in parameters:
        raise DataloupeError("This kind does not take 'wrong'.")
    return {"steps": 3, "seconds": 0.0} | parameters


def count(study: Study, parameters: dict[str, Any], report: Report) -> dict[str, Any]:
    """Create one mark file per step, continuing after existing marks."""
    marks = study.root / "marks" / str(parameters.get("name", ""))
    marks.mkdir(parents=True, exist_ok=True)
    steps = parameters["steps"]
    report(len(list(marks.iterdir())), steps, "counting")
    while (done := len(list(marks.iterdir()))) < steps:
        time.sleep(parameters["seconds"])
        (marks / str(done)).write_text(str(os.getpid()))
        report(done + 1, steps, f"counted {done + 1}")
    return {"counted": steps}


def ignore_sigterm(study: Study, parameters: dict[str, Any], report: Report) -> dict[str, Any]:
    """Sleep and ignore SIGTERM, as do its children and grandchildren, some in new sessions."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    nested = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {ignore!r}])\n{ignore}"
    )
    for own_session in (False, True):
        subprocess.Popen([sys.executable, "-c", nested], start_new_session=own_session)
    report(0, 1, "waiting")
    time.sleep(600)
    return {}


def sleep_in_pool(study: Study, parameters: dict[str, Any], report: Report) -> dict[str, Any]:
    """Sleep in worker processes of engine.running.processes."""
    report(0, 8, "working")
    done: list[float] = []

    def on_done(job: float, result: None) -> None:
        done.append(job)
        report(len(done), 8, "working")

    run_jobs(time.sleep, [parameters["seconds"]] * 8, 2, on_done)
    return {}


def refuse(study: Study, parameters: dict[str, Any], report: Report) -> dict[str, Any]:
    """Fail with an error for the user that spans two lines."""
    raise DataloupeError("The data do not fit:\n  correct them.")


def crash(study: Study, parameters: dict[str, Any], report: Report) -> dict[str, Any]:
    """Fail with an unexpected exception."""
    return {"never": 1 / 0}


def kill_runner(study: Study, parameters: dict[str, Any], report: Report) -> dict[str, Any]:
    """Kill the runner, then the job itself."""
    parent = os.getppid()
    assert b"engine.running.jobs.runner" in Path(f"/proc/{parent}/cmdline").read_bytes()
    os.kill(parent, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def print_lines(study: Study, parameters: dict[str, Any], report: Report) -> dict[str, Any]:
    """Print a line, and another from a child process."""
    print("good morning <b>", flush=True)
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    return {"study": str(Path(study.root).name)}
