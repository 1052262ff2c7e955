"""The runner of a study's jobs: `python -m engine.running.jobs.runner STUDY`.

It holds a lock, so a study has at most one, however many servers start it. Each job runs in a
separate process (`engine.running.jobs.child`), which the runner monitors. It ends the job's
processes on a cancel and when the study is moved or removed, and records the failure if the process
was killed. A runner that replaces a killed one monitors the running job, or restarts it if its
process is gone.
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
from engine.store.io_errors import open_no_link

ATTEMPTS = 3
"""How often to start a job whose runner keeps being interrupted."""
GRACE_SECONDS = 5.0
"""How long a job may take to end after SIGTERM."""
IDLE_SECONDS = 5.0
"""How long the runner waits for work before it exits."""
TICK_SECONDS = 0.2
LARGEST_LOG = 2**20
"""Bytes of the runner's own log, which then begins again."""
_PYTHON = (sys.executable, "-P", "-m")
"""Runs a module of this installation; -P ignores modules in the working directory."""
_SERVER_VARIABLES = ("STREAMLIT_", "DATALOUPE_")
"""Prefixes of a server's environment variables, which a job must not depend on."""


# --- starting a runner --------------------------------------------------------------------------


def start_runner(root: Path) -> None:
    """Start a runner unless one is running. It outlives this process."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(_SERVER_VARIABLES)
    } | {"PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path)}  # noqa: PTH100
    with _lock(root) as lock:
        if lock is None:
            return
        path = layout.runner_log_file(root)
        full = path.exists() and path.stat().st_size > LARGEST_LOG
        with open_no_link(path, "wb" if full else "ab") as log:
            child = subprocess.Popen(
                [*_PYTHON, "engine.running.jobs.runner", root.resolve(), str(lock)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock],  # the runner inherits the lock, so no second one can start
            )
    threading.Thread(target=child.wait, daemon=True).start()  # avoids a zombie process


@contextlib.contextmanager
def _lock(root: Path, inherited: int | None = None) -> Iterator[int | None]:
    """Take the runner's lock and yield its descriptor; None if another runner holds it."""
    if layout.jobs_folder(root).is_symlink():
        raise StoreError(f"{layout.jobs_folder(root)} is a link, which is not followed. Remove it.")
    path = layout.runner_lock_file(root)
    file = open_no_link(path, "wb") if inherited is None else os.fdopen(inherited, "wb")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


# --- the runner's process -----------------------------------------------------------------------


def main(root: Path, inherited: int | None = None) -> None:
    """Run jobs until there are none. Return at once if another runner holds the lock.

    Args:
        inherited: Descriptor of the lock, if the process that started this one has taken it.
    """
    runner = Runner(root)
    signal.signal(signal.SIGTERM, runner.stop)
    # A job may be submitted after the last check for work, while the lock is still held, so that no
    # runner is started for it. Therefore check once more after releasing the lock.
    while not runner.stopping and runner.is_home():
        with _lock(runner.root, inherited) as lock:
            if lock is None:
                return
            runner.run()
        inherited = None
        if not runner.has_work():
            return


class Runner:
    """Runs jobs in order and monitors each until it ends.

    Attributes:
        root: The study's folder.
        stopping: Whether SIGTERM was received.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stopping = False
        self._home = home(root)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM: end the running job and exit. The next runner starts the job again."""
        self.stopping = True

    def is_home(self) -> bool:
        """Whether the study's folder is still in its place."""
        return home(self.root) == self._home

    def has_work(self) -> bool:
        """Whether there is a job to run or to monitor."""
        if not self.is_home() or not layout.jobs_file(self.root).exists():
            return False
        with connected(self.root) as connection:
            found = connection.execute(
                "SELECT 1 FROM jobs WHERE home = ? AND status IN ('waiting', 'running')",
                (self._home,),
            ).fetchone()
        return found is not None

    def run(self) -> None:
        """Run jobs until there has been none for `IDLE_SECONDS`."""
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
        """Mark the job that has waited longest as running and return it; None if none waits."""
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
        """Monitor, restart or close the job that a previous runner left running."""
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
                    f"It was interrupted {ATTEMPTS} times, each time together with its runner. "
                    "Finished work is kept; see the log for how far it got.",
                )

    def _start(self, connection: sqlite3.Connection, job: sqlite3.Row) -> None:
        path = layout.job_log_file(self.root, job["id"])
        with open_no_link(path, "ab") as log:
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
        """Wait for the job's process to end, or end it, and make sure that its end is recorded.

        Args:
            process: The job's process; None if another runner started it.
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
                f"{self.root} was moved or removed while this job was running. Finished work is "
                "kept; retry the job where the study is now.",
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
        """Record how a job ended, unless its own process has recorded it."""
        connection.execute(
            "UPDATE jobs SET status = ?, ended = ?, error = ? WHERE id = ? AND status = 'running'",
            (status, time.time(), error, job["id"]),
        )

    def _mark(self, job: Any) -> str:
        return f"{self._home}:{job['id']}"


def _death(status: int | None) -> str:
    how = "ended unexpectedly" if status is None else f"ended with status {status}"
    if status is not None and status < 0:
        how = f"was killed by signal {-status}"
    return (
        f"Its process {how}. If memory ran out, use fewer workers. Finished work is kept, and a "
        "retry continues from there."
    )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    except StoreError as error:
        sys.exit(str(error))
