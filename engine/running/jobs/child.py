"""The process of one job: `python -m engine.running.jobs.child STUDY NUMBER ATTEMPT`.

The runner starts it. It writes its progress and its result to the database itself, so nothing is
lost if the runner is killed. A process of an abandoned attempt changes nothing.
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
from engine.store.io_errors import io_text
from engine.study.reader import StudyReader

_SECONDS_BETWEEN_REPORTS = 0.25
_LONGEST_WHAT = 200
_EXIT_INTERRUPTED = 130


class _Attempt:
    """One attempt at a job, and the job's row in the queue."""

    def __init__(self, root: Path, number: int, attempt: int) -> None:
        self._root = root
        self._which = (number, attempt)
        self._reported = 0.0

    def change(self, values: str, *parameters: Any) -> sqlite3.Row | None:
        """Update the row and return it; None if this attempt was abandoned."""
        with connected(self._root) as connection:
            row: sqlite3.Row | None = connection.execute(
                f"UPDATE jobs SET {values} WHERE id = ? AND attempt = ? AND status = 'running' "
                "RETURNING *",
                (*parameters, *self._which),
            ).fetchone()
        return row

    def report(self, done: int, total: int, what: str) -> None:
        """Record the job's progress. Calls in quick succession are skipped, but never the last."""
        now = time.time()
        if done < total and now - self._reported < _SECONDS_BETWEEN_REPORTS:
            return
        self._reported = now
        with contextlib.suppress(StoreError):  # a full or busy disk must not end the job
            self.change(
                "done = ?1, total = ?2, what = ?3, reported = ?4, "
                "first_done = coalesce(first_done, ?1), "
                "first_reported = coalesce(first_reported, ?4)",
                done,
                total,
                what[:_LONGEST_WHAT],
                now,
            )

    def end(self, status: str, error: str = "", result: dict[str, Any] | None = None) -> None:
        """Record how the job ended."""
        self.change(
            "status = ?, ended = ?, error = ?, result = ?",
            status,
            time.time(),
            " ".join(error.split()),
            json.dumps(result or {}, allow_nan=False),
        )


def main(root: Path, number: int, attempt: int) -> int:
    """Run the job and return the exit code, which the runner reads only if no end was recorded."""
    signal.signal(signal.SIGTERM, _interrupt)
    this_attempt = _Attempt(root, number, attempt)
    try:
        job = this_attempt.change("pid = ?", os.getpid())
        if job is None:
            return 0
        parameters = json.loads(job["parameters"])
        result = kind(job["kind"]).work(StudyReader.open(root), parameters, this_attempt.report)
        this_attempt.end("done", result=result)
    except (InterruptedBuild, KeyboardInterrupt):
        return _EXIT_INTERRUPTED
    except DataloupeError as error:
        print(error, file=sys.stderr)
        this_attempt.end("failed", str(error))
    except OSError as error:
        print(io_text(error), file=sys.stderr)
        this_attempt.end("failed", io_text(error))
    except Exception as error:
        traceback.print_exc()
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        this_attempt.end("failed", f"An unexpected error occurred ({what}); see the job's log.")
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
