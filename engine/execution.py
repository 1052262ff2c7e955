"""Where jobs run: in this process, or in worker processes of this machine.

A job is a small picklable value and a function of a module that turns it into a result. Jobs are
independent, so a worker can die, or all of them be stopped, at any moment: what jobs write is
whole or absent (engine.store), and the next build goes on from there.

Workers are fresh interpreters that import only what the function needs: never the caller's
`__main__`, so a script needs no `if __name__ == "__main__"`, and notebooks, console scripts and
threads are all fine callers. Worker and parent talk over a socket. Its closing is the one signal
of death both ways: the parent sees a dead worker, and a worker whose parent is gone ends itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Literal, TypeVar

from engine.errors import DataloupeError, InterruptedBuild, SpecError

Job = TypeVar("Job")
Result = TypeVar("Result")

_ATTEMPTS = 2
_WORKERS_ON_GPU = 4
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from engine.execution import _work; _work(int(sys.argv[1]))"
)


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    on_done: Callable[[Job, Result], None],
    threads: int = 1,
) -> None:
    """Run `function` on every job.

    Args:
        function: Of an importable module (not of `__main__`), so that workers find it.
        jobs: Picklable values, started in this order.
        workers: How many processes; 0 runs the jobs in this one (tests, debuggers).
        on_done: Called in this process with (job, result) as each job ends, in order of ending.
        threads: Threads of a worker's tensor arithmetic.

    Raises:
        DataloupeError: A job raised it, or its worker died twice. The other workers are ended.
        InterruptedBuild: Ctrl-C; all workers are ended.
        RuntimeError: Any other exception of a job, with its traceback.
    """
    try:
        if workers == 0:
            _run_here(function, jobs, on_done, threads)
        else:
            _run_in_workers(function, jobs, workers, on_done, threads)
    except KeyboardInterrupt:
        raise InterruptedBuild(
            "Stopped. What is finished is kept; the same command goes on from here."
        ) from None


def default_workers(device: str) -> int:
    """How many one-thread processes to run: one a core, or a few that share the GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(_WORKERS_ON_GPU, cores or 1) if device.startswith("cuda") else cores or 1


def pick_device(requested: Literal["auto", "cpu", "cuda"] | str) -> str:
    """Return `cpu` or `cuda`.

    Raises:
        SpecError: `cuda` is asked for where torch sees none, or the name is not known.
    """
    import torch

    if requested not in ("auto", "cpu", "cuda"):
        raise SpecError(f"device {requested!r} is not known; take auto, cpu or cuda.")
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise SpecError(
            "device 'cuda' was asked for, but this torch "
            + (
                "is built without CUDA: install a CUDA build, or take --device cpu."
                if torch.version.cuda is None
                else "sees no GPU: check `nvidia-smi`, or take --device cpu."
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
    with _torch_threads(threads):
        for job in jobs:
            on_done(job, function(job))


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """The number of threads changes the order of sums, so it is that of a worker here too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- in workers: the parent's side --------------------------------------------------------------


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]


def _run_in_workers(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    on_done: Callable[[Job, Result], None],
    threads: int,
) -> None:
    waiting = deque((job, 1) for job in jobs)
    busy: dict[Connection[Any, Any], tuple[_Worker, Job, int]] = {}
    idle: list[_Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                job, attempt = waiting.popleft()
                worker = idle.pop() if idle else _start_worker(threads)
                busy[worker.connection] = worker, job, attempt
                with contextlib.suppress(ConnectionError):  # a dead worker is found just below
                    worker.connection.send_bytes(pickle.dumps((function, job)))
            for connection in wait(list(busy)):
                worker, job, attempt = busy[connection]  # type: ignore[index]
                try:
                    failure, result = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    status = worker.process.wait()
                    if attempt == _ATTEMPTS:
                        raise _died(job, status) from None
                    waiting.appendleft((job, attempt + 1))
                    _end(worker)
                else:
                    if failure is not None:
                        raise failure
                    idle.append(worker)
                    on_done(job, result)
                del busy[worker.connection]
    finally:
        for worker in [*idle, *(worker for worker, _, _ in busy.values())]:
            _end(worker)


def _start_worker(threads: int) -> _Worker:
    ours, theirs = Pipe()
    settings = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # glibc: keep freed activations instead of giving them back and faulting them in again
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _START, str(theirs.fileno()), json.dumps(sys.path)],
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # Ctrl-C in the terminal reaches the parent alone
    )
    theirs.close()
    return _Worker(process, ours)


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.wait()
    worker.connection.close()


def _died(job: object, status: int) -> DataloupeError:
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return DataloupeError(
        f"A worker {how}, twice, at {_short(job)}. If memory ran out, take fewer --workers or a "
        "smaller batch_size; what is finished is kept."
    )


def _short(job: object) -> str:
    text = repr(job)
    return text if len(text) <= 200 else text[:197] + "..."


# --- in workers: the worker's side --------------------------------------------------------------


def _work(descriptor: int) -> None:
    """Take jobs from the socket until it closes."""
    connection = Connection(descriptor)
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, received), daemon=True).start()
    while True:
        connection.send_bytes(_attempt(received.get()))


def _receive(connection: Connection[Any, Any], received: queue.SimpleQueue[bytes]) -> None:
    """Listen even while a job runs: when the parent is gone, so is this worker, at once."""
    try:
        while True:
            received.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(1)


def _attempt(message: bytes) -> bytes:
    """Run one pickled (function, job) and pickle (what to raise in the parent, result)."""
    try:
        function, job = pickle.loads(message)
        return pickle.dumps((None, function(job)))
    except DataloupeError as error:
        return pickle.dumps((error, None))
    except Exception:
        text = f"A job failed in its worker:\n{traceback.format_exc()}"
        return pickle.dumps((RuntimeError(text), None))
