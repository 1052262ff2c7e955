"""A job's own process: `python -m engine.running.jobs.child STUDY NUMBER ATTEMPT`, started by the
runner.

It says itself how far it is and how it ended, so that nothing is lost when the runner is killed. A
process of an attempt that was given up changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from engine.running.jobs.database import connected
from engine.running.jobs.kinds import kind
from engine.store.errors import DataloupeError, InterruptedBuild, StoreError
from engine.study.reader import StudyReader

_SECONDS_BETWEEN_REPORTS = 0.25
_LONGEST_WORDS = 200
_STOPPED = 130


class _Attempt:
    """One attempt at a job, and its row in the queue."""

    def __init__(self, root: Path, number: int, attempt: int) -> None:
        self._root = root
        self._which = (number, attempt)
        self._reported = 0.0

    def change(self, values: str, *parameters: Any) -> sqlite3.Row | None:
        """Change the row; returns it, or None where this attempt is given up."""
        with connected(self._root) as connection:
            row: sqlite3.Row | None = connection.execute(
                f"UPDATE jobs SET {values} WHERE id = ? AND attempt = ? AND status = 'running' "
                "RETURNING *",
                (*parameters, *self._which),
            ).fetchone()
        return row

    def report(self, done: int, total: int, what: str) -> None:
        """Say how far the job is; most of what comes too fast is left out, the last never."""
        now = time.time()
        if done < total and now - self._reported < _SECONDS_BETWEEN_REPORTS:
            return
        self._reported = now
        with contextlib.suppress(StoreError):  # a disk that is full or busy must not end the work
            self.change(
                "done = ?1, total = ?2, what = ?3, reported = ?4, "
                "first_done = coalesce(first_done, ?1), "
                "first_reported = coalesce(first_reported, ?4)",
                done,
                total,
                what[:_LONGEST_WORDS],
                now,
            )

    def end(self, status: str, error: str = "", result: dict[str, Any] | None = None) -> None:
        """Say how the job ended."""
        self.change(
            "status = ?, ended = ?, error = ?, result = ?",
            status,
            time.time(),
            " ".join(error.split()),
            json.dumps(result or {}, allow_nan=False),
        )


def main(root: Path, number: int, attempt: int) -> int:
    """Do the job; return the exit code, which the runner reads only where nothing was said."""
    signal.signal(signal.SIGTERM, _interrupt)
    own = _Attempt(root, number, attempt)
    try:
        job = own.change("pid = ?", os.getpid())
        if job is None:
            return 0
        parameters = json.loads(job["parameters"])
        result = kind(job["kind"]).work(StudyReader.open(root), parameters, own.report)
        own.end("done", result=result)
    except (InterruptedBuild, KeyboardInterrupt):
        return _STOPPED
    except DataloupeError as error:
        print(error, file=sys.stderr)
        own.end("failed", str(error))
    except Exception as error:
        traceback.print_exc()
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        own.end("failed", f"Something unexpected happened ({what}); its log says where.")
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
