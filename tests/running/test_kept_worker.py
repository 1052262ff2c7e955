"""A worker that is kept: answers again and again, is replaced when it fails, leaves with us."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.running.kept_worker import KeptWorker
from engine.store.errors import CheckpointError, DataloupeError
from tests.running.test_processes import (
    die,
    die_the_first_time,
    divide_by_zero,
    fail_at_two,
    square,
    threads_of_libraries,
)


@pytest.fixture
def kept() -> Iterator[KeptWorker]:
    worker = KeptWorker(threads=1, memory_bytes=2**30, idle_seconds=60, waiting_seconds=30)
    yield worker
    worker.end()
    assert worker.pid is None


def own_pid(_: int) -> int:
    return os.getpid()


def hang(job: object) -> None:
    time.sleep(60)


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def allocate(size: int) -> int:
    return len(bytearray(size))


def test_a_kept_worker_is_started_late_and_answers_again_and_again(kept: KeptWorker) -> None:
    assert kept.pid is None
    first = kept.call(own_pid, 0, 30)
    assert first == kept.call(own_pid, 0, 30) == kept.pid
    assert first != os.getpid()
    assert kept.call(square, 7, 30) == 49
    with pytest.raises(CheckpointError, match="number 2 does not fit"):
        kept.call(fail_at_two, 2, 30)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        kept.call(divide_by_zero, 1, 30)
    assert kept.pid == first


def test_a_kept_worker_computes_with_the_threads_it_is_given() -> None:
    kept = KeptWorker(threads=1, memory_bytes=2**32, idle_seconds=60, waiting_seconds=30)
    assert kept.call(threads_of_libraries, 0, 60)[1] == {1}
    kept.end()


def test_a_kept_worker_that_hangs_is_ended_and_replaced(kept: KeptWorker) -> None:
    first = kept.call(own_pid, 0, 30)
    with pytest.raises(DataloupeError, match="longer than 0 seconds"):
        kept.call(sleep, 60.0, 0.3)
    assert not Path(f"/proc/{first}").exists()
    assert kept.call(own_pid, 0, 30) != first


def test_a_kept_worker_that_dies_is_replaced(kept: KeptWorker, tmp_path: Path) -> None:
    assert kept.call(die_the_first_time, tmp_path / "marker", 30) == "marker"
    with pytest.raises(DataloupeError, match=r"ended twice \(status -9\)"):
        kept.call(die, 0, 30)
    assert kept.call(square, 2, 30) == 4


def test_a_kept_worker_may_not_take_more_memory_than_it_is_given(kept: KeptWorker) -> None:
    assert kept.call(allocate, 2**28, 30) == 2**28
    with pytest.raises(DataloupeError, match="more memory than a worker has"):
        kept.call(allocate, 2**31, 30)
    assert kept.call(allocate, 2**28, 30) == 2**28


def test_an_idle_worker_ends_and_the_next_call_starts_another() -> None:
    kept = KeptWorker(threads=1, memory_bytes=2**30, idle_seconds=0.2, waiting_seconds=30)
    first = kept.call(own_pid, 0, 30)
    deadline = time.monotonic() + 30
    while kept.pid is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert kept.pid is None
    assert kept.call(own_pid, 0, 30) != first


def test_threads_take_turns_and_do_not_wait_for_ever() -> None:
    kept = KeptWorker(threads=1, memory_bytes=2**30, idle_seconds=60, waiting_seconds=30)
    kept.call(square, 1, 30)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(kept.call(square, n, 30)))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [n * n for n in range(8)]
    kept._waiting_seconds = 0.1
    busy = threading.Thread(target=lambda: kept.call(sleep, 2.0, 30))
    busy.start()
    while not kept._turn.locked():
        time.sleep(0.01)
    with pytest.raises(DataloupeError, match="Other requests are running"):
        kept.call(square, 1, 30)
    busy.join()
    kept.end()


def test_a_kept_worker_leaves_with_its_parent() -> None:
    script = (
        "from engine.running.kept_worker import KeptWorker\n"
        "from tests.running.test_kept_worker import own_pid\n"
        "worker = KeptWorker(1, 2**30, 60, 30)\n"
        "print(worker.call(own_pid, 0, 30))\n"
    )
    pid = int(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    )
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
