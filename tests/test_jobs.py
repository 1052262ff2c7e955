"""The queue: all is done once and in order, nothing outlives a cancel, no death is silent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli import main
from engine.errors import DataloupeError, StoreError
from engine.jobs import queue
from engine.jobs.database import connected, home
from engine.jobs.kinds import KINDS
from engine.jobs.processes import MARK, carries, end_all, processes
from engine.jobs.queue import Job, cancel, job, jobs, log, resume, retry, seconds_left, submit
from engine.study import Study
from tests.job_kinds import TEST_KINDS
from tests.synthetic import write_study

SECONDS = 60.0
"""So long anything may take on a machine that does other things."""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    """A study without anything built, whose processes know the kinds of the tests."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "site")
    for name, kind in TEST_KINDS.items():
        monkeypatch.setitem(KINDS, name, kind)
    study = write_study(tmp_path / "study", stage="spec")
    yield study
    for folder in (study.root, study.root.with_name("moved")):
        if folder.exists():
            for runner in runners(folder):
                os.kill(runner, signal.SIGKILL)
            for number in range(1, 20):
                end_all(f"{home(Study.open(folder))}:{number}")


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def ended(study: Study, number: int) -> Job:
    until(lambda: not job(study, number).active)
    return job(study, number)


def under_way(study: Study, number: int, done: int = 0) -> None:
    until(lambda: job(study, number).total > 0 and job(study, number).done >= done)


def processes_of(study: Study, number: int) -> list[int]:
    return processes(f"{home(study)}:{number}")


def runners(root: Path) -> list[int]:
    """Runners of a study, found by their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"engine.jobs.runner" in words and str(root.resolve()).encode() in words:
                found.append(int(entry.name))
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: "Z" in stat(pid) or not Path(f"/proc/{pid}").exists())


def kill_runner(study: Study) -> None:
    """Kill it and wait until all of it is gone, and with it its lock."""
    (runner,) = runners(study.root)
    os.kill(runner, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{runner}").exists())


def stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


# --- what a job says ----------------------------------------------------------------------------


def test_jobs_run_in_order_one_at_a_time_and_say_what_they_gave(study: Study) -> None:
    assert jobs(study) == []
    numbers = [submit(study, "count", {"steps": n, "name": n}, f"Count to {n}") for n in (3, 2)]
    first, second = (ended(study, number) for number in numbers)
    assert [one.id for one in jobs(study)] == [2, 1]
    assert (first.status, first.title, first.result) == ("done", "Count to 3", {"counted": 3})
    assert (first.done, first.total, first.what, first.attempt) == (3, 3, "counted 3", 1)
    assert first.submitted <= first.started <= first.ended <= second.started <= second.ended
    assert first.parameters == {"steps": 3, "name": 3, "seconds": 0.0}
    assert len(runners(study.root)) == 1


def test_one_line_says_why_a_job_failed_and_its_log_says_more(study: Study) -> None:
    numbers = [submit(study, kind, {}) for kind in ("refuse", "stumble", "talk")]
    refused, stumbled, talked = (ended(study, number) for number in numbers)
    assert (refused.status, refused.error) == ("failed", "The data do not fit: put them right.")
    assert stumbled.status == "failed"
    assert "ZeroDivisionError: division by zero" in stumbled.error
    assert "Traceback" in log(study, stumbled.id)
    assert (talked.status, talked.title) == ("done", "Test: talk")
    assert log(study, talked.id).endswith("good morning <b>\nfrom a child\n")


def test_the_build_is_a_job_like_any_other(study_folder: Path) -> None:
    study = Study.open(study_folder)
    number = submit(study, "build", {"device": "cpu", "workers": 0})
    until(lambda: not job(study, number).active)
    found = job(study, number)
    assert (found.status, found.error) == ("done", "")
    assert found.done == found.total > 20
    assert all(step.complete for step in study.progress())


@given(
    done=st.integers(1, 10**6),
    left=st.integers(0, 10**6),
    each=st.floats(1e-3, 1e3),
    since=st.floats(0, 10),
)
def test_time_left_is_that_of_the_pieces_left(
    done: int, left: int, each: float, since: float
) -> None:
    found = seconds_left(done, left, done * each, since)
    assert found is not None
    assert found == pytest.approx(max(0.0, left * each - since), rel=1e-6, abs=1e-6)


def test_time_left_is_unknown_until_something_is_done() -> None:
    assert seconds_left(0, 10, 5.0, 1.0) is None
    assert seconds_left(1, 10, 0.0, 1.0) is None


def test_what_was_there_before_is_no_speed(study: Study) -> None:
    marks = study.root / "marks" / "there"
    marks.mkdir(parents=True)
    for mark in range(90):
        (marks / str(mark)).touch()
    number = submit(study, "count", {"steps": 200, "seconds": 0.5, "name": "there"})
    under_way(study, number, done=93)
    found = job(study, number)
    assert found.seconds_left > 0.4 * (200 - found.done)  # at 0.5 s each, less what has passed
    cancel(study, number)
    assert ended(study, number).seconds_left is None


# --- what is not taken --------------------------------------------------------------------------


def test_parameters_are_refused_before_anything_runs(study: Study) -> None:
    for kind, parameters, message in (
        ("nothing", {}, "no kind of job 'nothing'; there are build"),
        ("count", {"wrong": 1}, "takes no 'wrong'"),
        ("count", {"steps": float("nan")}, "plain JSON"),
        ("count", {"steps": object()}, "plain JSON"),
        ("build", {"speed": 1}, "A build takes device, workers, rebuild, not 'speed'"),
        ("build", {"device": "tpu"}, "device 'tpu' is not known"),
        ("build", {"workers": -1}, "workers must be 0 or more"),
        ("build", {"workers": True}, "workers must be 0 or more"),
        ("build", {"rebuild": "all"}, "no stage 'all'"),
    ):
        with pytest.raises(DataloupeError, match=message):
            submit(study, kind, parameters)
    assert jobs(study) == []
    assert not study.jobs_file.exists()


def test_the_same_work_is_not_put_in_twice(study: Study) -> None:
    number = submit(study, "count", {"seconds": 60.0})
    assert submit(study, "count", {"seconds": 60.0, "steps": 3}) == number
    assert submit(study, "count", {"seconds": 61.0}) == number + 1
    under_way(study, number)
    assert submit(study, "count", {"seconds": 60.0}) == number
    cancel(study, number)
    again = retry(study, number)  # what is being stopped is no longer the same work
    assert again == number + 2
    for one in (again, number + 1):
        cancel(study, one)
    assert {ended(study, one).status for one in (number, number + 1, again)} == {"cancelled"}


def test_many_submit_at_once(study: Study) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(
            pool.map(lambda n: submit(study, "count", {"steps": 1, "name": n % 4}), range(16))
        )
    assert len(set(numbers)) == len(jobs(study))
    assert {ended(study, number).status for number in numbers} == {"done"}
    assert sorted(path.name for path in (study.root / "marks").iterdir()) == ["0", "1", "2", "3"]


def test_no_such_job(study: Study) -> None:
    for act in (job, log, cancel, retry):
        with pytest.raises(DataloupeError, match="has no job 7"):
            act(study, 7)


def test_a_broken_or_foreign_database_is_named(study: Study) -> None:
    study.jobs_file.parent.mkdir()
    study.jobs_file.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"jobs.sqlite is broken .*Remove it"):
        jobs(study)
    study.jobs_file.unlink()
    connection = sqlite3.connect(study.jobs_file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="another version of Dataloupe"):
        submit(study, "count", {})


def test_a_folder_that_cannot_be_written_is_named(study: Study, monkeypatch) -> None:
    (study.root / "jobs").write_text("in the way")
    with pytest.raises(StoreError, match=r"jobs.sqlite cannot be made"):
        submit(study, "count", {})


# --- ending -------------------------------------------------------------------------------------


def test_cancelling_ends_every_process(study: Study) -> None:
    number = submit(study, "stubborn", {})
    until(lambda: len(processes_of(study, number)) == 5)
    waiting = submit(study, "count", {})
    cancel(study, waiting)
    assert job(study, waiting).status == "cancelled"
    assert job(study, waiting).started is None
    cancel(study, number)
    assert job(study, number).cancelling
    assert ended(study, number).status == "cancelled"
    assert processes_of(study, number) == []
    cancel(study, number)
    assert job(study, number).status == "cancelled"


def test_cancelling_ends_the_workers_of_a_pool(study: Study) -> None:
    number = submit(study, "pooled", {"seconds": 600.0})
    until(lambda: len(processes_of(study, number)) == 3)
    cancel(study, number)
    assert ended(study, number).status == "cancelled"
    assert processes_of(study, number) == []


def test_a_process_without_the_mark_is_never_touched() -> None:
    ours = subprocess.Popen(["sleep", "600"], env={MARK: "here:1"})
    other = subprocess.Popen(["sleep", "600"], env={MARK: "here:11"})
    end_all("here:1")
    assert ours.wait() == -signal.SIGKILL
    assert not carries(ours.pid, "here:1")
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_job_that_is_killed_from_outside_fails_with_one_line(study: Study) -> None:
    number = submit(study, "pooled", {"seconds": 600.0})
    until(lambda: len(processes_of(study, number)) == 3)
    with connected(study) as connection:
        (pid,) = connection.execute("SELECT pid FROM jobs").fetchone()
    kill(pid)
    found = ended(study, number)
    assert found.status == "failed"
    assert "was killed by signal 9" in found.error
    assert "\n" not in found.error
    assert processes_of(study, number) == []
    assert ended(study, submit(study, "count", {})).status == "done"


# --- deaths and moves ---------------------------------------------------------------------------


def test_a_job_goes_on_while_its_runner_is_killed_and_replaced(study: Study) -> None:
    number = submit(study, "count", {"steps": 12, "seconds": 0.25})
    under_way(study, number, done=2)
    kill_runner(study)
    before = job(study, number).done
    until(lambda: job(study, number).done > before)
    resume(study)
    found = ended(study, number)
    assert (found.status, found.done, found.attempt) == ("done", 12, 1)
    assert len({path.read_text() for path in (study.root / "marks" / "").rglob("?")}) == 1


def test_a_job_whose_runner_was_killed_can_be_cancelled(study: Study) -> None:
    number = submit(study, "count", {"steps": 1000, "seconds": 0.25})
    under_way(study, number)
    kill_runner(study)
    cancel(study, number)
    assert ended(study, number).status == "cancelled"
    assert processes_of(study, number) == []


def test_a_job_that_is_killed_together_with_its_runner_goes_on_from_there(study: Study) -> None:
    number = submit(study, "count", {"steps": 8, "seconds": 0.25})
    under_way(study, number, done=3)
    kill_runner(study)
    for pid in processes_of(study, number):
        kill(pid)
    assert job(study, number).status == "running"
    resume(study)
    found = ended(study, number)
    assert (found.status, found.done, found.attempt) == ("done", 8, 2)
    assert len({path.read_text() for path in (study.root / "marks").rglob("?")}) == 2
    assert log(study, number).count("Test: count, start") == 2


def test_work_that_keeps_killing_its_runner_is_given_up(study: Study) -> None:
    number = submit(study, "start_again", {})
    until(lambda: (resume(study), not job(study, number).active)[1])
    found = job(study, number)
    assert (found.status, found.attempt) == ("failed", 3)
    assert "interrupted 3 times" in found.error


def test_a_runner_that_is_told_to_end_puts_its_job_back(study: Study) -> None:
    number = submit(study, "count", {"steps": 1000, "seconds": 0.25})
    under_way(study, number)
    os.kill(runners(study.root)[0], signal.SIGTERM)
    until(lambda: job(study, number).status == "waiting")
    assert processes_of(study, number) == []
    cancel(study, number)


def test_two_runners_are_one(study: Study) -> None:
    number = submit(study, "count", {"steps": 4, "seconds": 0.25})
    under_way(study, number)
    command = [sys.executable, "-m", "engine.jobs.runner", str(study.root)]
    second = subprocess.run(command, env=os.environ, timeout=SECONDS, check=False)
    assert second.returncode == 0
    assert job(study, number).status == "running"
    assert (ended(study, number).status, job(study, number).attempt) == ("done", 1)


def test_a_study_that_is_moved_while_it_works(study: Study) -> None:
    number = submit(study, "count", {"steps": 1000, "seconds": 0.25})
    waiting = submit(study, "count", {"steps": 1})
    under_way(study, number, done=1)
    mark, (runner,) = f"{home(study)}:{number}", runners(study.root)
    moved = Study(study.root.rename(study.root.with_name("moved")), study.spec)
    until(lambda: not carries(runner, "") and stat(runner) == "Z")
    assert processes(mark) == []
    found = job(moved, number)
    assert found.status == "failed"
    assert "was moved or removed while this job ran" in found.error
    resume(moved)
    assert "moved or copied" in job(moved, waiting).error
    assert ended(moved, retry(moved, waiting)).status == "done"
    assert not study.root.exists()


def test_a_study_that_is_removed_while_it_works(study: Study) -> None:
    number = submit(study, "count", {"steps": 1000, "seconds": 0.25})
    under_way(study, number, done=1)
    mark, (runner,) = f"{home(study)}:{number}", runners(study.root)
    study.root.rename(study.root.with_name("trash"))
    shutil.rmtree(study.root.with_name("trash"))
    until(lambda: stat(runner) == "Z")
    assert processes(mark) == []


def test_a_copy_of_a_study_does_not_do_its_work_again(study: Study) -> None:
    number = submit(study, "count", {"steps": 1000, "seconds": 0.25})
    under_way(study, number)
    copy = Study.open(shutil.copytree(study.root, study.root.with_name("moved")))
    resume(copy)
    assert job(copy, number).status == "failed"
    assert "moved or copied" in job(copy, number).error
    assert job(study, number).status == "running"
    assert runners(copy.root) == []
    cancel(study, number)
    assert ended(study, number).status == "cancelled"


# --- the command line ---------------------------------------------------------------------------


def test_the_command_line(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["jobs", str(study.root), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    counted = submit(study, "count", {"steps": 4, "seconds": 0.1}, "Count [sheep]")
    code, out, _ = run("--wait", counted)
    assert code == 0
    assert "4/4" in out
    refused = submit(study, "refuse", {})
    assert run("--wait", refused)[::2] == (2, "dataloupe: The data do not fit: put them right.\n")
    assert "put them right" in run("--log", refused)[1]
    code, out, _ = run()
    assert code == 0
    assert "Count [sheep]" in out
    assert "failed" in out
    listed = json.loads(run("--json")[1])
    assert [one["status"] for one in listed] == ["failed", "done"]
    assert listed[1]["result"] == {"counted": 4}
    again = submit(study, "count", {"seconds": 600.0})
    assert run("--cancel", again)[0] == 0
    assert run("--wait", again)[::2] == (2, f"dataloupe: Job {again} was cancelled.\n")
    assert "job 4" in run("--retry", refused)[1]
    assert ended(study, 4).status == "failed"
    code, _, told = run("--cancel", 99)
    assert code == 2
    assert "has no job 99" in told


def test_listing_starts_nothing(study: Study) -> None:
    assert queue.jobs(study) == []
    assert main(["jobs", str(study.root)]) == 0
    assert not (study.root / "jobs").exists()
