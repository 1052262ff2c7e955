"""The Jobs page in every state, and how other pages show jobs."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.parts.jobs.cost import duration
from dashboard.parts.jobs.job_card import facts_of
from engine.api import Study
from engine.running.jobs import queue
from engine.running.jobs.database import connected, home
from engine.running.jobs.queue import cancel, job, jobs, submit
from engine.store import layout
from engine.study.lock import locked
from tests.builders.hostile_names import HOSTILE
from tests.builders.job_processes import ended, under_way
from tests.builders.page_contents import words
from tests.builders.synthetic_study import write_study


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study whose jobs are queued but never run."""
    monkeypatch.setattr(queue, "start_runner", lambda study: None)
    return write_study(tmp_path / "study")


def write(study: Study, **values: Any) -> int:
    """Insert a job into the queue's database."""
    row = {"home": home(study.root), "kind": "build", "title": "Build", "parameters": "{}"}
    row |= {"submitted": time.time() - 300, **values}
    with connected(study.root, create=True) as connection:
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", tuple(row.values()))
    return jobs(study.root)[0].id


def running(**values: Any) -> dict[str, Any]:
    now = time.time()
    found = {"status": "running", "started": now - 100, "attempt": 1, "what": "training"}
    found |= {"done": 30, "total": 100, "first_done": 10, "first_reported": now - 86}
    return found | {"reported": now, **values}


def keys(app: AppTest) -> list[str]:
    return [button.key for button in app.button if button.key]


def test_no_jobs_yet(visit: Any, written: Study) -> None:
    shown = words(visit(written, "jobs"))
    assert "No jobs yet" in shown
    assert not layout.jobs_file(written.root).exists()


def test_every_status_shows_its_details(visit: Any, written: Study) -> None:
    now = time.time()
    write(written, title="One", status="done", started=now - 200, ended=now - 77, attempt=1)
    write(written, title="Two", status="failed", started=now - 9, ended=now, error="No space.")
    write(written, title="Three", status="cancelled", ended=now)
    write(written, title="Four", **running())
    write(written, title="Five", submitted=now - 7)
    write(written, title="Six")
    app = visit(written, "jobs")
    shown = words(app)
    for text in (
        "Done",
        "took 2 min",
        "No space.",
        "Cancelled",
        "training",
        "30 of 100",
        "about 5 min left",
        "running for 2 min",
        'aria-valuenow="30"',
        "waiting for",
    ):
        assert text in shown, text
    shown = shown[shown.index('class="dl-job"') :]
    order = [shown.index(title) for title in ("Four", "Five", "Six", "Three", "Two", "One")]
    assert order == sorted(order)
    assert {"cancel-6", "cancel-5", "cancel-4", "retry-3", "retry-2"} == set(keys(app)) - {
        "build",
        "cancel_all",
    }


def test_cancel_and_retry(visit: Any, written: Study) -> None:
    write(written, title="Waits")
    write(written, title="Runs", **running())
    app = visit(written, "jobs")
    app.button(key="cancel-1").click().run()
    assert job(written.root, 1).status == "cancelled"
    app.button(key="cancel-2").click().run()
    assert job(written.root, 2).cancelling
    assert app.button(key="cancel-2").disabled
    assert app.button(key="cancel-2").label == "Stopping…"
    app.button(key="retry-1").click().run()
    assert [one.status for one in jobs(written.root)] == ["waiting", "running", "cancelled"]
    assert not app.exception


def test_all_jobs_are_cancelled(visit: Any, written: Study) -> None:
    write(written, title="One")
    assert "cancel_all" not in keys(visit(written, "jobs"))
    write(written, title="Two", **running())
    app = visit(written, "jobs")
    app.button(key="cancel_all").click().run()
    assert [job(written.root, number).status for number in (1, 2)] == ["cancelled", "running"]
    assert job(written.root, 2).cancelling


def test_missing_stages_can_be_built(visit: Any, tmp_path: Path, written: Study) -> None:
    unbuilt = write_study(tmp_path / "unbuilt", stage="data")
    app = visit(unbuilt, "jobs")
    app.button(key="build").click().run()
    (submitted,) = jobs(unbuilt.root)
    assert (submitted.kind, submitted.status) == ("build", "waiting")
    assert "build" not in keys(app)


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_jobs_are_escaped(visit: Any, written: Study, text: str) -> None:
    write(written, title=text, **running(what=text))
    write(written, title=text, status="failed", started=1.0, ended=2.0, error=text)
    app = visit(written, "jobs")
    assert not app.exception
    assert "<script>" not in words(app)
    assert "<img src=x" not in words(app)


def test_a_broken_queue_is_reported_and_other_pages_work(visit: Any, written: Study) -> None:
    write(written)
    layout.jobs_file(written.root).write_bytes(b"no database" * 1000)
    for name in ("jobs.sqlite-wal", "jobs.sqlite-shm"):
        layout.jobs_file(written.root).with_name(name).unlink(missing_ok=True)
    assert "jobs.sqlite is broken" in words(visit(written, "jobs"))
    assert "jobs.sqlite" not in words(visit(written, "explore"))


def test_every_page_shows_the_running_job(visit: Any, written: Study) -> None:
    def drawer(app: AppTest) -> str:
        return str(app.get("popover")[0].proto.popover.label)

    assert drawer(visit(written, "explore")) == "Jobs"
    write(written, title="Train *again*", **running())
    write(written, title="Later")
    assert drawer(visit(written, "explore")) == "Jobs (2) · 30%"
    with locked(written):
        assert drawer(visit(written, "explore")) == "Jobs (2) · 30%"


def test_a_panel_follows_one_job_to_its_end(idle_study: Study) -> None:
    def page(root: str, number: int) -> None:
        import streamlit as st

        from dashboard.parts.jobs.job_panel import job_panel
        from engine.api import Study

        job_panel(Study.open(root), number, lambda job: st.session_state.update(gave=job.result))
        st.text("all of the page")

    number = submit(idle_study, "count", {"steps": 4, "seconds": 0.2})
    app = AppTest.from_function(page, args=(str(idle_study.root), number), default_timeout=30)
    app.run()
    assert [button.key for button in app.button] == [f"cancel-{number}"]
    ended(idle_study, number)
    app.run()
    assert "Done" in words(app)
    assert not app.button
    again = submit(idle_study, "count", {"steps": 400, "seconds": 0.2})
    app = AppTest.from_function(page, args=(str(idle_study.root), again), default_timeout=30)
    under_way(idle_study, again)
    app.run()
    app.button(key=f"cancel-{again}").click().run()
    assert ended(idle_study, again).status == "cancelled"


def test_opening_the_dashboard_starts_waiting_jobs(visit: Any, idle_study: Study) -> None:
    number = submit(idle_study, "count", {"steps": 400, "seconds": 0.2})
    cancel(idle_study.root, number)
    ended(idle_study, number)
    with connected(idle_study.root) as connection:  # as if the machine had just crashed
        connection.execute("UPDATE jobs SET status = 'waiting', cancelling = 0")
        connection.execute('UPDATE jobs SET parameters = \'{"steps": 1, "seconds": 0}\'')
    visit(idle_study, "jobs")
    assert ended(idle_study, number).status == "done"


def test_durations_as_text() -> None:
    assert [duration(seconds) for seconds in (-1, 0.4, 59, 90, 3599, 3600 + 25 * 60)] == [
        "0 s",
        "0 s",
        "59 s",
        "2 min",
        "1 h 0 min",
        "1 h 25 min",
    ]


def test_a_restarted_job_is_marked(written: Study) -> None:
    write(written, **running(attempt=2))
    assert "started again after an interruption" in facts_of(jobs(written.root)[0], time.time())


def test_an_open_reader_does_not_block_the_database(written: Study) -> None:
    write(written)
    reader = sqlite3.connect(layout.jobs_file(written.root))
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM jobs").fetchall()
    assert write(written) == 2
    reader.close()
    assert len(jobs(written.root)) == 2


def test_a_build_in_a_terminal_is_shown(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", stage="data")
    assert "A build is running" not in words(visit(study, "jobs"))
    with locked(study):
        shown = words(visit(study, "jobs"))
        assert "A build is running, started outside the dashboard" in shown
        assert 'data-state="working"' in shown
        assert "A build is running" in words(visit(study, "explain", test="test-0"))
