"""The queue as everyone sees it: submit, look, cancel, read the log."""

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
    "The study was moved or copied while this job waited or ran. What is finished is kept; start "
    "the job again to do it here."
)


@dataclass(frozen=True)
class Job:
    """One piece of long work, as it stood when it was asked for.

    Attributes:
        parameters: All of them, defaults too.
        cancelling: It was asked to stop and has not yet.
        attempt: How often it was started: more than once where its runner was interrupted.
        done, total: How far it is, in units of its own; both 0 until it says so.
        what: It is doing now, in words.
        submitted, started, ended: Seconds since 1970; None until then.
        seconds_left: An estimate, from what was done since it was started; None where unknown.
        error: Why it failed, in one line.
        result: What it gave.
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
        """Whether it waits or runs."""
        return self.status in ACTIVE


def submit(study: StudyReader, kind: str, parameters: dict[str, Any], title: str = "") -> int:
    """Put a job into the queue and see to it that it is run; return its number.

    The same work that waits or runs already is not put in twice: its number is returned.

    Args:
        kind: One of `engine.running.jobs.kinds.KINDS`.
        parameters: As the kind takes them; what is left out gets its default.
        title: What people see; the kind's own if empty.

    Raises:
        DataloupeError: There is no such kind, or it cannot take the parameters.
        StoreError: The study's folder cannot be written.
    """
    chosen = kind_of(kind)
    try:
        text = json.dumps(chosen.checked(study, parameters), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataloupeError(f"Parameters of a job must be plain JSON: {error}.") from error
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
    """Submit a job's work once more; return the new number. Raises as `submit`."""
    again = job(study.root, number)
    return submit(study, again.kind, again.parameters, again.title)


def jobs(root: Path, active: bool = False, newest: int | None = None) -> list[Job]:
    """The jobs, newest first.

    Args:
        active: Only those that wait or run.
        newest: At most so many.
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
    """One job. Raises DataloupeError where there is none of this number."""
    row = None
    if layout.jobs_file(root).exists():
        with connected(root) as connection:
            row = connection.execute("SELECT * FROM jobs WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise DataloupeError(f"{root} has no job {number}. `dataloupe jobs {root}` lists them.")
    return _job(row)


def cancel(root: Path, number: int) -> None:
    """Stop a job: at once if it waits, else as soon as its processes are ended.

    One that has ended stays as it is. Raises DataloupeError where there is no such job.
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
    """What a job has printed; of a long log, its end. Raises as `job`."""
    job(root, number)
    path = layout.job_log_file(root, number)
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LONGEST_LOG))
        return file.read().decode("utf-8", errors="replace")


def resume(root: Path) -> None:
    """See to it that what waits is run: for a server that was started on a study with jobs.

    Jobs that were put in elsewhere, before the study was moved or copied here, fail and say so.
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
    """How long `left` pieces take if they go on as the `done` ones did.

    Args:
        done: Pieces done since the first report.
        left: Pieces left at the last report.
        took: Seconds from the first report to the last.
        since: Seconds since the last report.
    """
    if done <= 0 or took <= 0:
        return None
    return max(0.0, left * took / done - since)
