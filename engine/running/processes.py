"""Run jobs: in this process, in worker processes of this machine, or on a cluster.

A job is a small picklable value and a module-level function that turns it into a result. Jobs are
independent, so a worker can die, or all of them can be stopped, at any moment: files that jobs
write are complete or absent (engine.store), and the next build continues from there.

Workers are new interpreters that import only what the function needs, and never the caller's
`__main__`. So a script needs no `if __name__ == "__main__"`, and jobs can be run from notebooks,
console scripts and threads. Worker and parent communicate over a socket. Its closing is the only
signal of death in both directions: the parent sees a dead worker, and a worker whose parent is gone
exits. Workers of other machines (engine.running.cluster) are a different `Pool` in the same loop.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import resource
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from engine.data.fitting import DECODERS
from engine.running.threads import environment, limited
from engine.store.errors import DataloupeError, InterruptedBuild, SpecError
from engine.store.io_errors import io_text

Job = TypeVar("Job")
Result = TypeVar("Result")

_ATTEMPTS = 3
_MOST_IDLE = 2**30
"""A worker that holds more bytes of memory is not kept for other jobs."""
WORKERS_ON_GPU = 4
_kept: ContextVar[LocalPool | None] = ContextVar("workers that are kept", default=None)
_START = (
    "import json, sys; descriptor, path, limits = map(json.loads, sys.argv[1:]); "
    "sys.path[:] = path; from engine.running.processes import _work; _work(descriptor, **limits)"
)


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    on_done: Callable[[Job, Result], None],
    threads: int = 1,
) -> None:
    """Run `function` on every job, on this machine.

    Args:
        function: A function of an importable module (not of `__main__`), so that workers find it.
        jobs: Picklable values, started in this order.
        workers: Number of processes; 0 runs the jobs in this one (tests, debuggers).
        on_done: Called in this process with (job, result) when a job ends, in order of ending.
        threads: Number of threads of a worker's tensor arithmetic.

    Raises:
        DataloupeError: A job raised it, or its worker died three times. The other workers are
            stopped.
        InterruptedBuild: Ctrl-C; all workers are stopped.
        RuntimeError: Any other exception of a job, with its traceback.
    """
    if workers == 0:
        with _interruptible():
            _run_here(function, jobs, on_done, threads)
    elif (kept := _kept.get()) is not None and threads == 1:
        kept.resize(workers)
        run_in_pool(kept, function, jobs, on_done)
    else:
        with contextlib.closing(LocalPool(workers, threads)) as pool:
            run_in_pool(pool, function, jobs, on_done)


@contextlib.contextmanager
def keeping_workers(device: str) -> Iterator[None]:
    """Let one-thread workers live from one `run_jobs` to the next: starting one takes seconds.

    Those that use a GPU do not, as they would keep its memory from each other.
    """
    if device != "cpu" or _kept.get() is not None:
        yield
        return
    with contextlib.closing(LocalPool(1)) as pool:
        token = _kept.set(pool)
        try:
            yield
        finally:
            _kept.reset(token)


def default_workers(device: str) -> int:
    """Number of one-thread processes to run: one per core, or a few that share the GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(WORKERS_ON_GPU, cores or 1) if device.startswith("cuda") else cores or 1


def pick_device(requested: Literal["auto", "cpu", "cuda"] | str) -> str:
    """Return `cpu` or `cuda`.

    Raises:
        SpecError: `cuda` is requested but torch sees no GPU, or the name is unknown.
    """
    import torch

    if requested not in ("auto", "cpu", "cuda"):
        raise SpecError(f"Unknown device {requested!r}; choose auto, cpu or cuda.")
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise SpecError(
            "device 'cuda' was requested, but this torch "
            + (
                "is built without CUDA: install a CUDA build, or use --device cpu."
                if torch.version.cuda is None
                else "sees no GPU: check `nvidia-smi`, or use --device cpu."
            )
        )
    return "cuda" if available and requested != "cpu" else "cpu"


# --- in this process ----------------------------------------------------------------------------


def _run_here(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    on_done: Callable[[Job, Result], None],
    threads: int,
) -> None:
    with limited(threads):
        for job in jobs:
            on_done(job, function(job))


# --- in workers: the parent's side --------------------------------------------------------------


@dataclass(frozen=True)
class Death:
    """The end of a worker before its job was done."""

    how: str


Ticket = TypeVar("Ticket")


class Pool(Protocol[Ticket]):
    """Workers that each run one message at a time with `run_message`."""

    def slots(self) -> int:
        """Number of jobs to run at a time."""

    def start(self, message: bytes) -> Ticket:
        """Send a message to a worker."""

    def wait(self) -> list[tuple[Ticket, bytes | Death]]:
        """Wait for one or more replies."""

    def close(self) -> None:
        """Stop all running jobs."""


def run_in_pool(
    pool: Pool[Ticket],
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    on_done: Callable[[Job, Result], None],
) -> None:
    """Run `function` on every job in a pool; close it if that fails. Otherwise like `run_jobs`."""
    waiting = deque((job, 1) for job in jobs)
    busy: dict[Ticket, tuple[Job, int]] = {}
    try:
        with _interruptible():
            while waiting or busy:
                while waiting and len(busy) < pool.slots():
                    job, attempt = waiting.popleft()
                    busy[pool.start(pickle.dumps((function, job)))] = job, attempt
                for ticket, reply in pool.wait():
                    job, attempt = busy.pop(ticket)
                    if isinstance(reply, Death):
                        if attempt == _ATTEMPTS:
                            raise _died(job, reply)
                        waiting.appendleft((job, attempt + 1))
                        continue
                    error, result = pickle.loads(reply)
                    if error is not None:
                        raise error
                    on_done(job, result)
    except BaseException:
        pool.close()
        raise


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedBuild(
            "Stopped. Finished work is kept; the same command continues from here."
        ) from None


def _died(job: object, death: Death) -> DataloupeError:
    return DataloupeError(
        f"A worker {death.how}, {_ATTEMPTS} times, at {_short(job)}. If memory ran out, use "
        "fewer --workers or a smaller batch_size; finished work is kept."
    )


def _short(job: object) -> str:
    text = repr(job)
    return text if len(text) <= 200 else text[:197] + "..."


# --- in workers of this machine -----------------------------------------------------------------


class LocalPool:
    """Processes of this machine, started when first needed and reused for later jobs."""

    def __init__(self, workers: int, threads: int = 1) -> None:
        self._workers, self._threads = workers, threads
        self._processes: dict[Connection[Any, Any], subprocess.Popen[bytes]] = {}
        self._idle: list[Connection[Any, Any]] = []

    def slots(self) -> int:
        return self._workers

    def start(self, message: bytes) -> Connection[Any, Any]:
        if self._idle:
            connection = self._idle.pop()
        else:
            process, connection = start_worker(self._threads, self._workers)
            self._processes[connection] = process
        with contextlib.suppress(ConnectionError):  # a dead worker is found by `wait`
            connection.send_bytes(message)
        return connection

    def wait(self) -> list[tuple[Connection[Any, Any], bytes | Death]]:
        busy = [connection for connection in self._processes if connection not in self._idle]
        ready = set(wait(busy))
        return [
            (connection, self._receive(connection)) for connection in busy if connection in ready
        ]

    def close(self) -> None:
        for connection in list(self._processes):
            self._end(connection)

    def resize(self, workers: int) -> None:
        """Have at most so many processes, and none that holds much memory; all must be idle."""
        self._workers = workers
        for number, connection in enumerate(list(self._processes)):
            if number >= workers or resident_bytes(self._processes[connection].pid) > _MOST_IDLE:
                self._end(connection)

    def _receive(self, connection: Connection[Any, Any]) -> bytes | Death:
        try:
            reply = connection.recv_bytes()
        except (EOFError, OSError):
            status = self._processes[connection].wait()
            self._end(connection)
            return Death(
                f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            )
        self._idle.append(connection)
        return reply

    def _end(self, connection: Connection[Any, Any]) -> None:
        process = self._processes.pop(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        process.kill()
        process.wait()
        connection.close()


def resident_bytes(pid: int) -> int:
    """Memory that a process holds; 0 if it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def start_worker(
    threads: int, workers: int = 1, **limits: float
) -> tuple[subprocess.Popen[bytes], Connection[Any, Any]]:
    """Start a process that receives messages for `run_message` over a connection.

    Args:
        threads: Number of threads of its tensor arithmetic.
        workers: How many such processes share the machine.
        limits: `memory_bytes` that it may allocate (mapped files do not count), and `idle_seconds`
            without a message after which it exits. A missing limit does not apply.
    """
    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _START, *map(json.dumps, (theirs.fileno(), sys.path, limits))],
        env={**os.environ, **worker_environment(threads, workers)},
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # Ctrl-C in the terminal reaches the parent only
    )
    theirs.close()
    return process, ours


def worker_environment(threads: int, workers: int | None = None) -> dict[str, str]:
    """Environment variables of one of so many workers' processes on a machine, if that is known."""
    share = threads if workers is None else max(1, default_workers("cpu") // max(1, workers))
    return {
        **environment(threads),
        DECODERS: str(share),
        # glibc: keep freed activations, to avoid page faults when they are allocated again
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
    }


# --- in workers: the worker's side --------------------------------------------------------------


def _work(
    descriptor: int, memory_bytes: int | None = None, idle_seconds: float | None = None
) -> None:
    """Run jobs from the socket until it closes, or none arrives for `idle_seconds`."""
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    connection = Connection(descriptor)
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, received), daemon=True).start()
    while True:
        try:
            message = received.get(timeout=idle_seconds)
        except queue.Empty:
            os._exit(0)
        connection.send_bytes(run_message(message))


def _receive(connection: Connection[Any, Any], received: queue.SimpleQueue[bytes]) -> None:
    """Listen even while a job runs, so that this worker exits at once if its parent is gone."""
    try:
        while True:
            received.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(1)


def run_message(message: bytes) -> bytes:
    """Run one pickled (function, job); return a pickled (error for the parent, result)."""
    try:
        function, job = pickle.loads(message)
        return pickle.dumps((None, function(job)))
    except DataloupeError as error:
        return failure(error)
    except OSError as error:
        return failure(DataloupeError(io_text(error)))
    except MemoryError:
        return failure(DataloupeError("This needs more memory than a worker has here."))
    except Exception:
        return failure(RuntimeError(f"A job failed in its worker:\n{traceback.format_exc()}"))


def failure(error: Exception) -> bytes:
    """A reply that raises `error` in the parent."""
    return pickle.dumps((error, None))
