"""A persistent worker process, for short requests that need much data loaded first."""

from __future__ import annotations

import pickle
import subprocess
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from engine.running.processes import start_worker
from engine.store.errors import DataloupeError

Job = TypeVar("Job")
Result = TypeVar("Result")

_ATTEMPTS = 2


class KeptWorker:
    """One worker that runs successive calls, so data loaded for one call serves the next.

    The first call starts it. Threads share it and take turns. It is replaced if it dies or is ended
    because a call took too long. It exits when it is idle for too long, and when this process ends.
    """

    def __init__(
        self, threads: int, memory_bytes: int, idle_seconds: float, waiting_seconds: float
    ) -> None:
        """Set the limits. The first call starts the worker.

        Args:
            threads: Number of threads of the worker's tensor arithmetic.
            memory_bytes: Most memory that the worker may allocate; mapped files do not count.
            idle_seconds: Time without a call after which the worker exits.
            waiting_seconds: Longest time that a call waits for its turn.
        """
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._idle_seconds = idle_seconds
        self._waiting_seconds = waiting_seconds
        self._turn = threading.Lock()
        self._worker: tuple[subprocess.Popen[bytes], Connection[Any, Any]] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None if there is none."""
        worker = self._worker
        return worker[0].pid if worker is not None and worker[0].poll() is None else None

    def call(self, function: Callable[[Job], Result], job: Job, seconds: float) -> Result:
        """Run `function` (of an importable module) on a picklable job in the worker.

        Raises:
            DataloupeError: The job raised it; or it took longer than `seconds` or too much memory;
                or the worker died twice; or other calls kept the worker busy for too long.
            RuntimeError: Any other exception of the job, with its traceback.
        """
        if not self._turn.acquire(timeout=self._waiting_seconds):
            raise DataloupeError("Other requests are running. Try again in a moment.")
        try:
            result: Result = self._until_it_lives(pickle.dumps((function, job)), seconds)
            return result
        finally:
            self._turn.release()

    def end(self) -> None:
        """End the worker, if there is one. The next call starts a new one."""
        with self._turn:
            if self._worker is not None:
                self._end()

    def _until_it_lives(self, message: bytes, seconds: float) -> Any:
        status = 0
        for _ in range(_ATTEMPTS):
            try:
                return self._send(message, seconds)
            except (EOFError, ConnectionError):  # it had exited when idle, or this job killed it
                status = self._end()
        raise DataloupeError(
            f"The worker process ended twice (status {status}). It may have run out of memory, or "
            "the input may be damaged."
        )

    def _send(self, message: bytes, seconds: float) -> Any:
        if self._worker is None:
            self._worker = start_worker(
                self._threads, memory_bytes=self._memory_bytes, idle_seconds=self._idle_seconds
            )
        connection = self._worker[1]
        connection.send_bytes(message)
        if not connection.poll(seconds):
            self._end()
            raise DataloupeError(f"This took longer than {seconds:.0f} seconds and was stopped.")
        failure, result = connection.recv()
        if failure is not None:
            raise failure
        return result

    def _end(self) -> int:
        assert self._worker is not None
        (process, connection), self._worker = self._worker, None
        process.kill()
        connection.close()
        return process.wait()
