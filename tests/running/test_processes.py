"""Jobs: all done once, errors as themselves, and no worker that outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from engine.data.fitting import DECODERS
from engine.running import processes
from engine.running.processes import default_workers, keeping_workers, pick_device, run_jobs
from engine.store.errors import CheckpointError, DataloupeError, SpecError


def square(number: int) -> int:
    return number * number


def own_pid(_: int) -> int:
    return os.getpid()


def fail_at_two(number: int) -> int:
    if number == 2:
        raise CheckpointError("number 2 does not fit")
    return number


def divide_by_zero(number: int) -> float:
    return number / 0


def answer_with_a_lock(number: int) -> object:
    return threading.Lock()


def threads_of_libraries(_: int) -> tuple[int, set[int]]:
    """The process, and the sizes of all pools of threads in it, one that loads only now too."""
    import faiss  # noqa: F401
    import scipy.linalg  # noqa: F401
    import torch
    from threadpoolctl import threadpool_info

    pools = {pool["num_threads"] for pool in threadpool_info()}
    return os.getpid(), {torch.get_num_threads(), *pools}


def die_the_first_time(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return marker.name


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def note_pid_and_sleep(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(120)


def ignore(job: object, result: object) -> None: ...


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_job_is_done_once(workers: int) -> None:
    done: list[tuple[int, int]] = []
    run_jobs(square, range(7), workers, lambda job, result: done.append((job, result)))
    assert sorted(done) == [(job, job * job) for job in range(7)]
    if workers < 2:
        assert done == sorted(done)


def test_kept_workers_serve_one_run_after_another_and_end_with_the_last() -> None:
    found: list[int] = []

    def run(workers: int = 1) -> int:
        run_jobs(own_pid, [0], workers, lambda job, pid: found.append(pid))
        return found[-1]

    with keeping_workers("cpu"):
        first = run()
        with keeping_workers("cpu"):  # as a comparison within a job
            assert run(2) == first
        assert run(0) == os.getpid()
        run_jobs(own_pid, [0], 1, ignore)
        with pytest.raises(CheckpointError):
            run_jobs(fail_at_two, [2], 1, ignore)
        assert not Path(f"/proc/{first}").exists()
        second = run()
        assert second != first
    assert not Path(f"/proc/{second}").exists()
    with keeping_workers("cuda"):  # which would keep its memory from others
        assert not Path(f"/proc/{run()}").exists()


def test_no_jobs_start_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    run_jobs(square, [], 2, ignore)


@pytest.mark.determinism
def test_workers_compute_with_the_threads_asked_for_in_other_processes() -> None:
    found: list[tuple[int, set[int]]] = []
    run_jobs(threads_of_libraries, [0], 1, lambda _, result: found.append(result), threads=1)
    run_jobs(threads_of_libraries, [0], 0, lambda _, result: found.append(result), threads=2)
    assert [threads for _, threads in found] == [{1}, {2}]
    assert found[0][0] != os.getpid() == found[1][0]


IN_PROCESS = """
import os, sys
for name in list(os.environ):
    if name.endswith("_NUM_THREADS"):
        del os.environ[name]
sys.path.insert(0, {tests!r})
import numpy, torch
from engine.running.processes import run_jobs
from tests.running.test_processes import threads_of_libraries

cores = torch.get_num_threads()
run_jobs(threads_of_libraries, [0], 0, lambda _, found: print(found[1]), threads=1)
assert not [name for name in os.environ if name.endswith("_NUM_THREADS")]
assert threads_of_libraries(0)[1] == {{cores}}, threads_of_libraries(0)
"""


@pytest.mark.determinism
def test_a_job_in_this_process_limits_every_library_and_gives_all_threads_back() -> None:
    """In a process of its own: what this one has loaded, and with which limits, is unknown."""
    script = IN_PROCESS.format(tests=str(Path(__file__).parents[2]))
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (found.stdout, found.stderr) == ("{1}\n", "")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_mistake_comes_back_as_itself(workers: int) -> None:
    with pytest.raises(CheckpointError, match=r"^number 2 does not fit$"):
        run_jobs(fail_at_two, range(5), workers, ignore)


def test_a_bug_comes_back_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)divide_by_zero.*ZeroDivisionError"):
        run_jobs(divide_by_zero, [1], 1, ignore)


def test_a_result_that_cannot_travel_says_so() -> None:
    with pytest.raises(RuntimeError, match="cannot pickle"):
        run_jobs(answer_with_a_lock, [1], 1, ignore)


def test_an_error_in_on_done_is_raised() -> None:
    def refuse(job: int, result: int) -> None:
        raise SpecError("no more")

    with pytest.raises(SpecError, match="no more"):
        run_jobs(square, range(3), 1, refuse)


def test_a_killed_workers_job_is_tried_again(tmp_path: Path) -> None:
    done: list[str] = []
    jobs = [tmp_path / "a", tmp_path / "b"]
    run_jobs(die_the_first_time, jobs, 2, lambda _, result: done.append(result))
    assert sorted(done) == ["a", "b"]


def test_a_job_that_kills_every_worker_is_named() -> None:
    with pytest.raises(DataloupeError, match=r"killed by signal 9, 3 times, at 17\. .*--workers"):
        run_jobs(die, [17], 2, ignore)


def test_run_jobs_works_from_a_thread() -> None:
    done: list[int] = []
    thread = threading.Thread(
        target=run_jobs, args=(square, [3], 1, lambda _, result: done.append(result))
    )
    thread.start()
    thread.join(60)
    assert done == [9]


# --- a parent of its own, to be interrupted and killed -------------------------------------------

PARENT = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
sys.path.insert(0, {tests!r})
from engine.store.errors import InterruptedBuild
from engine.running.processes import run_jobs
from tests.running.test_processes import note_pid_and_sleep, square

results = []
run_jobs(square, [4], 1, lambda job, result: results.append(result))  # no __main__ guard
assert results == [16]
folder = Path({folder!r})
try:
    run_jobs(note_pid_and_sleep, [folder, folder], 2, lambda *_: None)
except InterruptedBuild as stop:
    print(stop)
"""


@pytest.fixture
def parent(tmp_path: Path) -> subprocess.Popen[str]:
    """A script, as a user would write it, with two workers that sleep."""
    pids = tmp_path / "pids"
    pids.mkdir()
    script = tmp_path / "script.py"
    text = PARENT.format(tests=str(Path(__file__).parents[2]), folder=str(pids))
    script.write_text(textwrap.dedent(text))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: len(list(pids.iterdir())) == 2 or process.poll() is not None)
    return process


def wait_until(true: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_ctrl_c_ends_all_workers_without_noise(
    parent: subprocess.Popen[str], tmp_path: Path
) -> None:
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert [is_running(pid) for pid in pids] == [True, True]
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
    out, err = parent.communicate(timeout=30)
    assert (parent.returncode, err) == (0, "")
    assert "continues from here" in out
    assert not any(is_running(pid) for pid in pids)


def test_workers_die_with_a_killed_parent(parent: subprocess.Popen[str], tmp_path: Path) -> None:
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert [is_running(pid) for pid in pids] == [True, True]
    parent.kill()
    parent.communicate(timeout=30)
    wait_until(lambda: not any(is_running(pid) for pid in pids), seconds=10)


# --- devices --------------------------------------------------------------------------------------


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == "cpu"
    with pytest.raises(SpecError, match="--device cpu"):
        pick_device("cuda")
    with pytest.raises(SpecError, match="auto, cpu or cuda"):
        pick_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == pick_device("cuda") == "cuda"
    assert pick_device("cpu") == "cpu"


def test_one_worker_a_core_on_a_cpu_and_a_few_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert default_workers("cpu") == 64
    assert 1 < default_workers("cuda") < 64


def test_workers_share_the_cores_that_decode_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "default_workers", lambda device: 16)
    shares = {n: processes.worker_environment(1, n)[DECODERS] for n in (1, 4, 16, 40)}
    assert shares == {1: "16", 4: "4", 16: "1", 40: "1"}
    assert processes.worker_environment(1)[DECODERS] == "1"
