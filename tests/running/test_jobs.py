"""The job queue: jobs run once and in order, cancels end all processes, crashes are reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import Study
from engine.cli.main import main
from engine.running.jobs import queue
from engine.running.jobs.database import connected, home
from engine.running.jobs.process_tree import MARK, carries, end_all, processes
from engine.running.jobs.queue import cancel, job, jobs, log, resume, retry, seconds_left, submit
from engine.store import layout
from engine.store.errors import DataloupeError, StoreError
from tests.builders.job_processes import (
    SECONDS,
    ended,
    kill,
    kill_runner,
    processes_of,
    runners,
    stat,
    under_way,
    until,
)

# --- progress and results -----------------------------------------------------------------------


def test_jobs_run_one_at_a_time_in_order_and_report_results(idle_study: Study) -> None:
    assert jobs(idle_study.root) == []
    numbers = [
        submit(idle_study, "count", {"steps": n, "name": n}, f"Count to {n}") for n in (3, 2)
    ]
    first, second = (ended(idle_study, number) for number in numbers)
    assert [one.id for one in jobs(idle_study.root)] == [2, 1]
    assert (first.status, first.title, first.result) == ("done", "Count to 3", {"counted": 3})
    assert (first.done, first.total, first.what, first.attempt) == (3, 3, "counted 3", 1)
    assert first.submitted <= first.started <= first.ended <= second.started <= second.ended
    assert first.parameters == {"steps": 3, "name": 3, "seconds": 0.0}
    assert len(runners(idle_study.root)) == 1


def test_a_failed_job_has_a_one_line_error_and_a_full_log(idle_study: Study) -> None:
    numbers = [submit(idle_study, kind, {}) for kind in ("refuse", "crash", "print_lines")]
    refused, crashed, printed = (ended(idle_study, number) for number in numbers)
    assert (refused.status, refused.error) == ("failed", "The data do not fit: correct them.")
    assert crashed.status == "failed"
    assert "ZeroDivisionError: division by zero" in crashed.error
    assert "Traceback" in log(idle_study.root, crashed.id)
    assert (printed.status, printed.title) == ("done", "Test: print_lines")
    assert log(idle_study.root, printed.id).endswith("good morning <b>\nfrom a child\n")


def test_a_build_runs_as_a_job(study_folder: Path) -> None:
    study = Study.open(study_folder)
    number = submit(study, "build", {"device": "cpu", "workers": 0})
    until(lambda: not job(study.root, number).active)
    found = job(study.root, number)
    assert (found.status, found.error) == ("done", "")
    assert found.done == found.total > 20
    assert all(step.complete for step in study.progress())


@given(
    done=st.integers(1, 10**6),
    left=st.integers(0, 10**6),
    each=st.floats(1e-3, 1e3),
    since=st.floats(0, 10),
)
def test_time_left_is_proportional_to_the_steps_left(
    done: int, left: int, each: float, since: float
) -> None:
    found = seconds_left(done, left, done * each, since)
    assert found is not None
    assert found == pytest.approx(max(0.0, left * each - since), rel=1e-6, abs=1e-6)


def test_time_left_is_unknown_until_a_step_is_done() -> None:
    assert seconds_left(0, 10, 5.0, 1.0) is None
    assert seconds_left(1, 10, 0.0, 1.0) is None


def test_steps_done_by_an_earlier_attempt_do_not_count_as_speed(idle_study: Study) -> None:
    marks = idle_study.root / "marks" / "there"
    marks.mkdir(parents=True)
    for mark in range(90):
        (marks / str(mark)).touch()
    number = submit(idle_study, "count", {"steps": 200, "seconds": 0.5, "name": "there"})
    under_way(idle_study, number, done=93)
    found = job(idle_study.root, number)
    assert found.seconds_left > 0.4 * (200 - found.done)  # 0.5 s each, less the time since
    cancel(idle_study.root, number)
    assert ended(idle_study, number).seconds_left is None


# --- what is refused ----------------------------------------------------------------------------


def test_invalid_parameters_are_refused_before_anything_runs(idle_study: Study) -> None:
    for kind, parameters, message in (
        ("nothing", {}, "no job kind 'nothing'; kinds are build"),
        ("count", {"wrong": 1}, "does not take 'wrong'"),
        ("count", {"steps": float("nan")}, "plain JSON"),
        ("count", {"steps": object()}, "plain JSON"),
        ("build", {"speed": 1}, "A build takes device, workers, rebuild, not 'speed'"),
        ("build", {"device": "tpu"}, "Unknown device 'tpu'"),
        ("build", {"workers": -1}, "workers must be 0 or more"),
        ("build", {"workers": True}, "workers must be 0 or more"),
        ("build", {"rebuild": "all"}, "no stage 'all'"),
    ):
        with pytest.raises(DataloupeError, match=message):
            submit(idle_study, kind, parameters)
    assert jobs(idle_study.root) == []
    assert not layout.jobs_file(idle_study.root).exists()


def test_the_same_work_is_not_queued_twice(idle_study: Study) -> None:
    number = submit(idle_study, "count", {"seconds": 60.0})
    assert submit(idle_study, "count", {"seconds": 60.0, "steps": 3}) == number
    assert submit(idle_study, "count", {"seconds": 61.0}) == number + 1
    under_way(idle_study, number)
    assert submit(idle_study, "count", {"seconds": 60.0}) == number
    cancel(idle_study.root, number)
    again = retry(idle_study, number)  # a job that is being cancelled does not count as a duplicate
    assert again == number + 2
    for one in (again, number + 1):
        cancel(idle_study.root, one)
    assert {ended(idle_study, one).status for one in (number, number + 1, again)} == {"cancelled"}


def test_concurrent_submissions_run_once_each(idle_study: Study) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(
            pool.map(lambda n: submit(idle_study, "count", {"steps": 1, "name": n % 4}), range(16))
        )
    assert len(set(numbers)) == len(jobs(idle_study.root))
    assert {ended(idle_study, number).status for number in numbers} == {"done"}
    assert sorted(path.name for path in (idle_study.root / "marks").iterdir()) == [
        "0",
        "1",
        "2",
        "3",
    ]


def test_an_unknown_job_number_is_refused(idle_study: Study) -> None:
    for function in (job, log, cancel):
        with pytest.raises(DataloupeError, match="has no job 7"):
            function(idle_study.root, 7)
    with pytest.raises(DataloupeError, match="has no job 7"):
        retry(idle_study, 7)


def test_the_error_names_a_broken_database_or_one_of_another_version(idle_study: Study) -> None:
    layout.jobs_file(idle_study.root).parent.mkdir()
    layout.jobs_file(idle_study.root).write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"jobs.sqlite is broken .*Remove it"):
        jobs(idle_study.root)
    layout.jobs_file(idle_study.root).unlink()
    connection = sqlite3.connect(layout.jobs_file(idle_study.root))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="another version of Dataloupe"):
        submit(idle_study, "count", {})


def test_the_error_names_a_database_that_cannot_be_created(idle_study: Study) -> None:
    (idle_study.root / "jobs").write_text("in the way")
    with pytest.raises(StoreError, match=r"jobs.sqlite cannot be created"):
        submit(idle_study, "count", {})


# --- ending jobs --------------------------------------------------------------------------------


def test_cancelling_ends_every_process(idle_study: Study) -> None:
    number = submit(idle_study, "ignore_sigterm", {})
    until(lambda: len(processes_of(idle_study, number)) == 5)
    waiting = submit(idle_study, "count", {})
    cancel(idle_study.root, waiting)
    assert job(idle_study.root, waiting).status == "cancelled"
    assert job(idle_study.root, waiting).started is None
    cancel(idle_study.root, number)
    assert job(idle_study.root, number).cancelling
    assert ended(idle_study, number).status == "cancelled"
    assert processes_of(idle_study, number) == []
    cancel(idle_study.root, number)
    assert job(idle_study.root, number).status == "cancelled"


def test_cancelling_ends_the_workers_of_a_pool(idle_study: Study) -> None:
    number = submit(idle_study, "sleep_in_pool", {"seconds": 600.0})
    until(lambda: len(processes_of(idle_study, number)) == 3)
    cancel(idle_study.root, number)
    assert ended(idle_study, number).status == "cancelled"
    assert processes_of(idle_study, number) == []


def test_processes_without_the_mark_are_not_killed() -> None:
    ours = subprocess.Popen(["sleep", "600"], env={MARK: "here:1"})
    other = subprocess.Popen(["sleep", "600"], env={MARK: "here:11"})
    end_all("here:1")
    assert ours.wait() == -signal.SIGKILL
    assert not carries(ours.pid, "here:1")
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_killed_job_fails_with_one_line(idle_study: Study) -> None:
    number = submit(idle_study, "sleep_in_pool", {"seconds": 600.0})
    until(lambda: len(processes_of(idle_study, number)) == 3)
    with connected(idle_study.root) as connection:
        (pid,) = connection.execute("SELECT pid FROM jobs").fetchone()
    kill(pid)
    found = ended(idle_study, number)
    assert found.status == "failed"
    assert "was killed by signal 9" in found.error
    assert "\n" not in found.error
    assert processes_of(idle_study, number) == []
    assert ended(idle_study, submit(idle_study, "count", {})).status == "done"


# --- crashes and moves --------------------------------------------------------------------------


def test_a_job_continues_while_its_runner_is_killed_and_replaced(idle_study: Study) -> None:
    number = submit(idle_study, "count", {"steps": 12, "seconds": 0.25})
    under_way(idle_study, number, done=2)
    kill_runner(idle_study)
    before = job(idle_study.root, number).done
    until(lambda: job(idle_study.root, number).done > before)
    resume(idle_study.root)
    found = ended(idle_study, number)
    assert (found.status, found.done, found.attempt) == ("done", 12, 1)
    assert len({path.read_text() for path in (idle_study.root / "marks" / "").rglob("?")}) == 1


def test_a_job_whose_runner_was_killed_can_be_cancelled(idle_study: Study) -> None:
    number = submit(idle_study, "count", {"steps": 1000, "seconds": 0.25})
    under_way(idle_study, number)
    kill_runner(idle_study)
    cancel(idle_study.root, number)
    assert ended(idle_study, number).status == "cancelled"
    assert processes_of(idle_study, number) == []


def test_a_job_killed_with_its_runner_resumes(idle_study: Study) -> None:
    number = submit(idle_study, "count", {"steps": 8, "seconds": 0.25})
    under_way(idle_study, number, done=3)
    kill_runner(idle_study)
    for pid in processes_of(idle_study, number):
        kill(pid)
    assert job(idle_study.root, number).status == "running"
    resume(idle_study.root)
    found = ended(idle_study, number)
    assert (found.status, found.done, found.attempt) == ("done", 8, 2)
    assert len({path.read_text() for path in (idle_study.root / "marks").rglob("?")}) == 2
    assert log(idle_study.root, number).count("Test: count, start") == 2


def test_a_job_that_keeps_killing_its_runner_fails(idle_study: Study) -> None:
    number = submit(idle_study, "kill_runner", {})
    until(lambda: (resume(idle_study.root), not job(idle_study.root, number).active)[1])
    found = job(idle_study.root, number)
    assert (found.status, found.attempt) == ("failed", 3)
    assert "interrupted 3 times" in found.error


def test_a_terminated_runner_puts_its_job_back(idle_study: Study) -> None:
    number = submit(idle_study, "count", {"steps": 1000, "seconds": 0.25})
    under_way(idle_study, number)
    os.kill(runners(idle_study.root)[0], signal.SIGTERM)
    until(lambda: job(idle_study.root, number).status == "waiting")
    assert processes_of(idle_study, number) == []
    cancel(idle_study.root, number)


def test_a_second_runner_exits_at_once(idle_study: Study) -> None:
    number = submit(idle_study, "count", {"steps": 1000, "seconds": 0.25})
    under_way(idle_study, number)
    command = [sys.executable, "-m", "engine.running.jobs.runner", str(idle_study.root)]
    second = subprocess.run(command, env=os.environ, timeout=SECONDS, check=False)
    assert second.returncode == 0
    assert (job(idle_study.root, number).status, job(idle_study.root, number).attempt) == (
        "running",
        1,
    )
    cancel(idle_study.root, number)
    assert ended(idle_study, number).status == "cancelled"


def test_moving_a_study_ends_its_job(idle_study: Study) -> None:
    number = submit(idle_study, "count", {"steps": 1000, "seconds": 0.25})
    waiting = submit(idle_study, "count", {"steps": 1})
    under_way(idle_study, number, done=1)
    mark, (runner,) = f"{home(idle_study.root)}:{number}", runners(idle_study.root)
    moved = Study(idle_study.root.rename(idle_study.root.with_name("moved")), idle_study.spec)
    until(lambda: not carries(runner, "") and stat(runner) == "Z")
    assert processes(mark) == []
    found = job(moved.root, number)
    assert found.status == "failed"
    assert "was moved or removed while this job was running" in found.error
    resume(moved.root)
    assert "moved or copied" in job(moved.root, waiting).error
    assert ended(moved, retry(moved, waiting)).status == "done"
    assert not idle_study.root.exists()


def test_removing_a_study_ends_its_job(idle_study: Study) -> None:
    number = submit(idle_study, "count", {"steps": 1000, "seconds": 0.25})
    under_way(idle_study, number, done=1)
    mark, (runner,) = f"{home(idle_study.root)}:{number}", runners(idle_study.root)
    idle_study.root.rename(idle_study.root.with_name("trash"))
    shutil.rmtree(idle_study.root.with_name("trash"))
    until(lambda: stat(runner) == "Z")
    assert processes(mark) == []


def test_a_copied_study_does_not_run_its_jobs_again(idle_study: Study) -> None:
    number = submit(idle_study, "count", {"steps": 1000, "seconds": 0.25})
    under_way(idle_study, number)
    copy = Study.open(shutil.copytree(idle_study.root, idle_study.root.with_name("moved")))
    resume(copy.root)
    assert job(copy.root, number).status == "failed"
    assert "moved or copied" in job(copy.root, number).error
    assert job(idle_study.root, number).status == "running"
    assert runners(copy.root) == []
    cancel(idle_study.root, number)
    assert ended(idle_study, number).status == "cancelled"


# --- the command line ---------------------------------------------------------------------------


def test_jobs_on_the_command_line(idle_study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["jobs", str(idle_study.root), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    counted = submit(idle_study, "count", {"steps": 4, "seconds": 0.1}, "Count [sheep]")
    code, out, _ = run("--wait", counted)
    assert code == 0
    assert "Count [sheep]: started." in out
    assert "Count [sheep]: finished after" in out
    refused = submit(idle_study, "refuse", {})
    assert run("--wait", refused)[::2] == (2, "dataloupe: The data do not fit: correct them.\n")
    assert "correct them" in run("--log", refused)[1]
    code, out, _ = run()
    assert code == 0
    assert "Count [sheep]" in out
    assert "failed" in out
    listed = json.loads(run("--json")[1])
    assert [one["status"] for one in listed] == ["failed", "done"]
    assert listed[1]["result"] == {"counted": 4}
    again = submit(idle_study, "count", {"seconds": 600.0})
    assert run("--cancel", again)[0] == 0
    assert run("--wait", again)[::2] == (2, f"dataloupe: Job {again} was cancelled.\n")
    assert "job 4" in run("--retry", refused)[1]
    assert ended(idle_study, 4).status == "failed"
    code, _, printed = run("--cancel", 99)
    assert code == 2
    assert "has no job 99" in printed


def test_listing_jobs_creates_nothing(idle_study: Study) -> None:
    assert queue.jobs(idle_study.root) == []
    assert main(["jobs", str(idle_study.root)]) == 0
    assert not (idle_study.root / "jobs").exists()
