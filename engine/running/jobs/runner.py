"""The runner of a study's jobs: `python -m engine.running.jobs.runner STUDY`.

It holds a lock, so there is one however many servers ask. A job runs in a process of its own
(engine.running.jobs.child), which the runner watches: it ends the job's processes when that is
asked for,
and when the study is moved or removed; it says so where one died from outside. A runner that
follows one that was killed goes on watching the job if that still runs, and else starts it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from engine.running.jobs.database import connected, home, transaction
from engine.running.jobs.process_tree import MARK, carries, end, end_all, ended
from engine.store import layout
from engine.store.errors import StoreError

ATTEMPTS = 3
"""How often a job is started whose runner keeps being interrupted."""
GRACE_SECONDS = 5.0
"""How long a job that is asked to end may take to put things away."""
IDLE_SECONDS = 5.0
"""After so long without work the runner leaves."""
TICK_SECONDS = 0.2
_PYTHON = (sys.executable, "-P", "-m")
"""A module of this installation, whatever lies in the working folder."""
_OWN = ("STREAMLIT_", "DATALOUPE_")
"""Variables of a server, which a job must not depend on."""


# --- starting it --------------------------------------------------------------------------------


def start_runner(root: Path) -> None:
    """Start a runner unless one lives. It belongs to no one: it outlives this process."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(_OWN)
    } | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)}  # noqa: PTH100
    with _lock(root) as lock:
        if lock is None:
            return
        with layout.runner_log_file(root).open("ab") as log:
            child = subprocess.Popen(
                [*_PYTHON, "engine.running.jobs.runner", root.resolve(), str(lock)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock],  # the lock passes over, so no second one is started meanwhile
            )
    threading.Thread(target=child.wait, daemon=True).start()  # so that it leaves no zombie


@contextlib.contextmanager
def _lock(root: Path, inherited: int | None = None) -> Iterator[int | None]:
    """The descriptor of the lock that a runner holds; None while another one lives."""
    path = layout.runner_lock_file(root)
    try:
        file = path.open("w") if inherited is None else os.fdopen(inherited, "w")
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


# --- being it -----------------------------------------------------------------------------------


def main(root: Path, inherited: int | None = None) -> None:
    """Run jobs until there are none, as the only one to do so.

    Args:
        inherited: Descriptor of the lock, if whoever started this process has taken it already.
    """
    runner = Runner(root)
    signal.signal(signal.SIGTERM, runner.stop)
    # A job may come between the last look and the end, and whoever put it in saw the lock held. So
    # there is one more look when it is not.
    while not runner.stopping and runner.is_home():
        with _lock(runner.root, inherited) as lock:
            if lock is None:
                return
            runner.run()
        inherited = None
        if not runner.has_work():
            return


class Runner:
    """Takes jobs in order and watches each to its end.

    Attributes:
        root: The study's folder.
        stopping: It was asked to end.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stopping = False
        self._home = home(root)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handler of SIGTERM: end the running job and leave; the next runner starts it again."""
        self.stopping = True

    def is_home(self) -> bool:
        """Whether the study is still where it was."""
        return home(self.root) == self._home

    def has_work(self) -> bool:
        """Whether there is a job to run, or one to look after."""
        if not self.is_home() or not layout.jobs_file(self.root).exists():
            return False
        with connected(self.root) as connection:
            found = connection.execute(
                "SELECT 1 FROM jobs WHERE home = ? AND status IN ('waiting', 'running')",
                (self._home,),
            ).fetchone()
        return found is not None

    def run(self) -> None:
        """Run jobs until there has been none for a while."""
        with connected(self.root) as connection:
            self._recover(connection)
            idle_since = time.monotonic()
            while not self.stopping and self.is_home():
                job = self._take(connection)
                if job is not None:
                    self._start(connection, job)
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > IDLE_SECONDS:
                    return
                else:
                    time.sleep(TICK_SECONDS)

    def _take(self, connection: sqlite3.Connection) -> sqlite3.Row | None:
        """The job that has waited longest, now running."""
        with transaction(connection):
            row: sqlite3.Row | None = connection.execute(
                "UPDATE jobs SET status = 'running', started = ?, attempt = attempt + 1, "
                "pid = NULL, first_done = NULL, first_reported = NULL, reported = NULL, what = '' "
                "WHERE id = (SELECT min(id) FROM jobs WHERE status = 'waiting' AND home = ?) "
                "RETURNING *",
                (time.time(), self._home),
            ).fetchone()
        return row

    def _recover(self, connection: sqlite3.Connection) -> None:
        """Look after the job that a runner before this one has left running."""
        for job in connection.execute(
            "SELECT * FROM jobs WHERE status = 'running' AND home = ?", (self._home,)
        ).fetchall():
            if job["pid"] is not None and carries(job["pid"], self._mark(job)):
                self._watch(connection, job, job["pid"])
                continue
            end_all(self._mark(job))
            if job["cancelling"]:
                self._close(connection, job, "cancelled")
            elif job["attempt"] < ATTEMPTS:
                self._put_back(connection, job)
            else:
                self._close(
                    connection,
                    job,
                    "failed",
                    f"It was interrupted {ATTEMPTS} times, each time together with what watches "
                    "over it. What is finished is kept; the log says how far it came.",
                )

    def _start(self, connection: sqlite3.Connection, job: sqlite3.Row) -> None:
        path = layout.job_log_file(self.root, job["id"])
        with path.open("ab") as log:
            started = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
            log.write(f"--- {started} UTC: {job['title']}, start {job['attempt']}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [
                    *_PYTHON,
                    "engine.running.jobs.child",
                    self.root,
                    str(job["id"]),
                    str(job["attempt"]),
                ],
                env={**os.environ, MARK: self._mark(job)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._watch(connection, job, process.pid, process)

    def _watch(
        self,
        connection: sqlite3.Connection,
        job: sqlite3.Row,
        pid: int,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """Wait for the job's process to end, or end it, and see that it is known how it ended.

        Args:
            process: None where another runner has started it.
        """
        mark = self._mark(job)
        moved = cancelled = False
        while not ended(pid, mark, TICK_SECONDS):
            moved = not self.is_home()
            cancelled = self._is_cancelled(connection, job)
            if moved or cancelled or self.stopping:
                end(pid, mark, GRACE_SECONDS)
        status = None if process is None else process.wait()
        end_all(mark)
        if moved:
            self._close(
                connection,
                job,
                "failed",
                f"{self.root} was moved or removed while this job ran. What is finished is "
                "kept; start the job again where the study is now.",
            )
        elif cancelled or self._is_cancelled(connection, job):
            self._close(connection, job, "cancelled")
        elif self.stopping:
            self._put_back(connection, job)
        else:
            self._close(connection, job, "failed", _death(status))

    def _is_cancelled(self, connection: sqlite3.Connection, job: sqlite3.Row) -> bool:
        row = connection.execute("SELECT cancelling FROM jobs WHERE id = ?", (job["id"],))
        return bool(row.fetchone()["cancelling"])

    def _put_back(self, connection: sqlite3.Connection, job: sqlite3.Row) -> None:
        connection.execute(
            "UPDATE jobs SET status = 'waiting', pid = NULL WHERE id = ? AND status = 'running'",
            (job["id"],),
        )

    def _close(
        self, connection: sqlite3.Connection, job: sqlite3.Row, status: str, error: str = ""
    ) -> None:
        """Say how a job ended, unless its own process has said it."""
        connection.execute(
            "UPDATE jobs SET status = ?, ended = ?, error = ? WHERE id = ? AND status = 'running'",
            (status, time.time(), error, job["id"]),
        )

    def _mark(self, job: Any) -> str:
        return f"{self._home}:{job['id']}"


def _death(status: int | None) -> str:
    how = "ended without a word" if status is None else f"ended with status {status}"
    if status is not None and status < 0:
        how = f"was killed by signal {-status}"
    return (
        f"Its process {how}. If memory ran out, take fewer workers; what is finished is kept, and "
        "starting the job again goes on from there."
    )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    except StoreError as error:
        sys.exit(str(error))
