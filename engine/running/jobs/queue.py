"""The public interface of the queue: submit, list, cancel and retry jobs, and read their logs."""

from __future__ import annotations

import contextlib
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
MOST_WAITING = 100
"""Jobs that wait or run."""
MOST_WAITING_EACH = 20
"""Of them, those of one person."""
KEPT_JOBS = 500
"""Ended jobs that stay listed, with their logs."""
KEPT_DAYS = 90
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
        who: Who submitted it; empty if that is not known.
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
    who: str = ""

    @property
    def active(self) -> bool:
        """Whether it is waiting or running."""
        return self.status in ACTIVE


def submit(
    study: StudyReader, kind: str, parameters: dict[str, Any], title: str = "", who: str = ""
) -> int:
    """Add a job to the queue, start a runner if none is running, and return the job's number.

    If the same work is already waiting or running, that job's number is returned instead.

    Args:
        kind: A key of `engine.running.jobs.kinds.KINDS`.
        parameters: Parameters of the kind; missing ones get their defaults.
        title: Title to display; the kind's title if empty.
        who: Who submits it, if people are to be told apart.

    Raises:
        DataloupeError: There is no such kind, the parameters are invalid, or too many jobs wait.
        StoreError: The study's folder cannot be written.
    """
    chosen = kind_of(kind)
    try:
        text = json.dumps(chosen.checked(study, parameters), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataloupeError(f"The parameters of a job must be plain JSON: {error}.") from error
    title = " ".join((title or chosen.title).split())[:LONGEST_TITLE]
    here = home(study.root)
    prune(study.root)
    with connected(study.root, create=True) as connection, transaction(connection):
        same = connection.execute(
            "SELECT id FROM jobs WHERE home = ? AND kind = ? AND parameters = ? "
            "AND status IN ('waiting', 'running') AND NOT cancelling",
            (here, kind, text),
        ).fetchone()
        number = same and same["id"]
        if same is None:
            _check_room(connection, who)
            number = connection.execute(
                "INSERT INTO jobs (home, kind, title, parameters, submitted, who) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (here, kind, title, text, time.time(), who),
            ).lastrowid
    start_runner(study.root)
    return int(number)


def _check_room(connection: sqlite3.Connection, who: str) -> None:
    """Raise DataloupeError if too many jobs wait, in all or of this person."""
    active = "SELECT count(*) FROM jobs WHERE status IN ('waiting', 'running')"
    (every,) = connection.execute(active).fetchone()
    (own,) = connection.execute(f"{active} AND who = ?", (who,)).fetchone()
    if who and own >= MOST_WAITING_EACH:
        raise DataloupeError(
            f"You have {own} jobs in the queue, the most for one person. Cancel some, or wait."
        )
    if every >= MOST_WAITING:
        raise DataloupeError(
            f"{every} jobs are in the queue, the most there can be. Cancel some, or wait."
        )


def retry(study: StudyReader, number: int, who: str = "") -> int:
    """Submit a job's work again and return the new number. Raises the same as `submit`."""
    again = job(study.root, number)
    return submit(study, again.kind, again.parameters, again.title, who)


def prune(root: Path, keep: int = KEPT_JOBS, days: float = KEPT_DAYS) -> int:
    """Remove ended jobs and their logs: those beyond the newest `keep`, and those older than that.

    Results of jobs are files of the study, and stay. Returns the number of removed jobs.
    """
    if not layout.jobs_file(root).exists():
        return 0
    oldest = time.time() - days * 86_400
    with connected(root) as connection, transaction(connection):
        gone = connection.execute(
            "DELETE FROM jobs WHERE status NOT IN ('waiting', 'running') AND "
            "(coalesce(ended, submitted) < ? OR id NOT IN (SELECT id FROM jobs "
            "WHERE status NOT IN ('waiting', 'running') ORDER BY id DESC LIMIT ?)) RETURNING id",
            (oldest, keep),
        ).fetchall()
    for row in gone:
        layout.job_log_file(root, row["id"]).unlink(missing_ok=True)
    return len(gone)


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


def cancel_all(root: Path) -> int:
    """Cancel all jobs that wait or run; return how many."""
    active = jobs(root, active=True)
    # Waiting ones first, so that none starts when the running one ends.
    for one in sorted(active, key=lambda one: one.status == "running"):
        cancel(root, one.id)
    return len(active)


def log(root: Path, number: int) -> str:
    """Return a job's output, the last `LONGEST_LOG` bytes of it. Raises the same as `job`."""
    job(root, number)
    path = layout.job_log_file(root, number)
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LONGEST_LOG))
        return file.read().decode("utf-8", errors="replace")
    return ""  # it has printed nothing yet, or is pruned


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
        who=row["who"] if "who" in row.keys() else "",  # noqa: SIM118 - a row is no dict
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
