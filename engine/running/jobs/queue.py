"""The public interface of the queue: submit, list, cancel and retry jobs, and read their logs."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.running.jobs.database import connected, home, transaction
from engine.running.jobs.kinds import kind as kind_of
from engine.running.jobs.runner import start_runner
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader

Status = Literal["waiting", "running", "done", "failed", "cancelled"]
ACTIVE: tuple[Status, Status] = ("waiting", "running")
LONGEST_TITLE = 120
LONGEST_LOG = 200_000
_ELSEWHERE = (
    "The study was moved or copied while this job was waiting or running. Finished work is kept; "
    "retry the job to continue here."
)


@dataclass(frozen=True)
class Job:
    """A snapshot of one job.

    Attributes:
        parameters: All parameters, including defaults.
        cancelling: A cancel was requested, but the job has not ended yet.
        attempt: How often it was started: more than once if its runner was interrupted.
        done, total: Progress in steps of the job; both 0 until its first report.
        what: Description of the current step.
        submitted, started, ended: Seconds since 1970; None if that has not happened yet.
        seconds_left: Estimate from the progress of this attempt; None if unknown.
        error: Why it failed, in one line.
        result: What `run` of its kind returned.
    """

    id: int
    kind: str
    title: str
    parameters: dict[str, Any]
    status: Status
    cancelling: bool
    attempt: int
    done: int
    total: int
    what: str
    submitted: float
    started: float | None
    ended: float | None
    seconds_left: float | None
    error: str
    result: dict[str, Any]

    @property
    def active(self) -> bool:
        """Whether it is waiting or running."""
        return self.status in ACTIVE


def submit(study: StudyReader, kind: str, parameters: dict[str, Any], title: str = "") -> int:
    """Add a job to the queue, start a runner if none is running, and return the job's number.

    If the same work is already waiting or running, that job's number is returned instead.

    Args:
        kind: A key of `engine.running.jobs.kinds.KINDS`.
        parameters: Parameters of the kind; missing ones get their defaults.
        title: Title to display; the kind's title if empty.

    Raises:
        DataloupeError: There is no such kind, or the parameters are invalid.
        StoreError: The study's folder cannot be written.
    """
    chosen = kind_of(kind)
    try:
        text = json.dumps(chosen.checked(study, parameters), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataloupeError(f"The parameters of a job must be plain JSON: {error}.") from error
    title = " ".join((title or chosen.title).split())[:LONGEST_TITLE]
    here = home(study.root)
    with connected(study.root, create=True) as connection, transaction(connection):
        same = connection.execute(
            "SELECT id FROM jobs WHERE home = ? AND kind = ? AND parameters = ? "
            "AND status IN ('waiting', 'running') AND NOT cancelling",
            (here, kind, text),
        ).fetchone()
        number = same and same["id"]
        if same is None:
            number = connection.execute(
                "INSERT INTO jobs (home, kind, title, parameters, submitted) "
                "VALUES (?, ?, ?, ?, ?)",
                (here, kind, title, text, time.time()),
            ).lastrowid
    start_runner(study.root)
    return int(number)


def retry(study: StudyReader, number: int) -> int:
    """Submit a job's work again and return the new number. Raises the same as `submit`."""
    again = job(study.root, number)
    return submit(study, again.kind, again.parameters, again.title)


def jobs(root: Path, active: bool = False, newest: int | None = None) -> list[Job]:
    """List jobs, newest first.

    Args:
        active: Only list jobs that are waiting or running.
        newest: Largest number of jobs to list; None: no limit.
    """
    if not layout.jobs_file(root).exists():
        return []
    which = "WHERE status IN ('waiting', 'running')" if active else ""
    with connected(root) as connection:
        rows = connection.execute(
            f"SELECT * FROM jobs {which} ORDER BY id DESC LIMIT ?", (newest or -1,)
        ).fetchall()
    return [_job(row) for row in rows]


def job(root: Path, number: int) -> Job:
    """Return one job. Raises DataloupeError if there is no job with this number."""
    row = None
    if layout.jobs_file(root).exists():
        with connected(root) as connection:
            row = connection.execute("SELECT * FROM jobs WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise DataloupeError(f"{root} has no job {number}. `dataloupe jobs {root}` lists them.")
    return _job(row)


def cancel(root: Path, number: int) -> None:
    """Cancel a job: immediately if it is waiting, otherwise once its processes have ended.

    A job that has already ended does not change. Raises DataloupeError if there is no such job.
    """
    job(root, number)
    with connected(root) as connection, transaction(connection):
        connection.execute(
            "UPDATE jobs SET status = 'cancelled', ended = ? WHERE id = ? AND status = 'waiting'",
            (time.time(), number),
        )
        connection.execute(
            "UPDATE jobs SET cancelling = 1 WHERE id = ? AND status = 'running'", (number,)
        )
    resume(root)


def log(root: Path, number: int) -> str:
    """Return a job's output, the last `LONGEST_LOG` bytes of it. Raises the same as `job`."""
    job(root, number)
    path = layout.job_log_file(root, number)
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LONGEST_LOG))
        return file.read().decode("utf-8", errors="replace")


def resume(root: Path) -> None:
    """Start a runner if there are active jobs; a server calls this when it opens a study.

    Jobs that were submitted before the study was moved or copied here fail with that reason.
    """
    if not jobs(root, active=True):
        return
    here = home(root)
    with connected(root) as connection:
        connection.execute(
            "UPDATE jobs SET status = 'failed', ended = ?, error = ? "
            "WHERE home != ? AND status IN ('waiting', 'running')",
            (time.time(), _ELSEWHERE, here),
        )
    if jobs(root, active=True):
        start_runner(root)


def _job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"],
        kind=row["kind"],
        title=row["title"],
        parameters=json.loads(row["parameters"]),
        status=row["status"],
        cancelling=bool(row["cancelling"]),
        attempt=row["attempt"],
        done=row["done"],
        total=row["total"],
        what=row["what"],
        submitted=row["submitted"],
        started=row["started"],
        ended=row["ended"],
        seconds_left=_seconds_left(row, time.time()),
        error=row["error"],
        result=json.loads(row["result"]),
    )


def _seconds_left(row: sqlite3.Row, now: float) -> float | None:
    if row["status"] != "running" or row["reported"] is None:
        return None
    return seconds_left(
        row["done"] - row["first_done"],
        row["total"] - row["done"],
        row["reported"] - row["first_reported"],
        now - row["reported"],
    )


def seconds_left(done: int, left: int, took: float, since: float) -> float | None:
    """Estimate the remaining time from the average time per step; None if it is unknown.

    Args:
        done: Steps finished since the first report.
        left: Steps left at the last report.
        took: Seconds from the first report to the last.
        since: Seconds since the last report.
    """
    if done <= 0 or took <= 0:
        return None
    return max(0.0, left * took / done - since)
