"""Roles: what each may do on every page that writes, and that a hidden button is refused, too."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from dashboard import permissions, writes
from dashboard.login import Login
from dashboard.permissions import ROLE_VARIABLE, NotAllowed, Person, why_not
from engine import DataloupeError, Study
from engine.running.jobs import queue
from engine.running.jobs.queue import jobs
from engine.study.audit_log import entries
from engine.study.decisions import decide, read_decisions
from engine.study.removal_sets import keep_set
from engine.study.slices import save_slice, saved_slices
from engine.study.tags import read_tags, tag
from tests.builders.synthetic_study import write_study

DASHBOARD = Path(writes.__file__).parent


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study whose jobs are queued but never run."""
    monkeypatch.setattr(queue, "start_runner", lambda study: None)
    found = write_study(tmp_path / "study")
    save_slice(found, "coats", {"result": "wrong"})
    tag(found, "cnn", 0, "odd")
    decide(found, 0, "remove")
    queue.submit(found, "build", {})
    return found


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Be somebody on a server with a login."""

    def be(person: Person, **settings: Any) -> None:
        monkeypatch.setattr(permissions, "configured", lambda: Login((), (), "s", **settings))
        monkeypatch.setattr(permissions, "person", lambda: person)
        monkeypatch.setattr(writes, "person", lambda: person)

    return be


CONTROLS = {
    "jobs": ("cancel-1",),
    "explore": ("delete slice coats", "FormSubmitter:save_slice-Save"),
    "brittle": ("untag odd", "undo", "verify", "verify_first"),
    "what_if": ("ask",),
    "unlearn": ("ask",),
}
"""Page → keys of the buttons that write."""
PARAMETERS = {"brittle": {"test": "test-0"}}


def controls(app: Any) -> dict[str, Any]:
    return {control.key: control for control in [*app.button] if control.key}


@pytest.mark.parametrize("view", CONTROLS)
def test_a_viewer_gets_disabled_controls_and_the_reason(
    visit: Any, study: Study, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    monkeypatch.setenv(ROLE_VARIABLE, "viewer")
    app = visit(study, view, **PARAMETERS.get(view, {}))
    shown = controls(app)
    found = [key for key in CONTROLS[view] if key in shown]
    assert found, sorted(shown)
    for key in found:
        assert shown[key].disabled, key
        assert "Your role here is viewer" in shown[key].help
    monkeypatch.setenv(ROLE_VARIABLE, "owner")
    app = visit(study, view, **PARAMETERS.get(view, {}))
    assert any(not controls(app)[key].disabled for key in found)


@pytest.mark.parametrize("view", CONTROLS)
def test_a_hidden_button_that_is_pressed_all_the_same_is_refused(
    visit: Any, study: Study, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    before = state(study)
    for key in CONTROLS[view]:
        monkeypatch.setenv(ROLE_VARIABLE, "owner")  # a browser can show itself what it likes
        app = visit(study, view, **PARAMETERS.get(view, {}))
        if key not in controls(app) or controls(app)[key].disabled:
            continue
        if key.startswith("delete"):
            controls(app)[key].click().run()
        monkeypatch.setenv(ROLE_VARIABLE, "viewer")
        controls(app)[key].click().run()
        # A button that is not a callback is not even seen: the page draws it disabled again.
        assert {one.outcome for one in entries(study.root, 9)} <= {"refused"}, key
    assert state(study) == before


def state(study: Study) -> tuple[Any, ...]:
    return (
        [(one.id, one.status, one.cancelling) for one in jobs(study.root)],
        saved_slices(study)[0],
        read_tags(study, "cnn"),
        read_decisions(study),
        sorted(path.name for path in (study.root / "sets").glob("*")),
    )


def test_the_page_compare_takes_no_model_from_a_viewer(
    visit: Any, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROLE_VARIABLE, "viewer")
    app = visit(study, "compare")
    assert not app.get("file_uploader")
    assert "uploading models takes an editor" in " ".join(part.value for part in app.html)


WRITES: dict[str, Callable[[Study], object]] = {
    "submit": lambda study: writes.submit(study, "build", {}),
    "retry": lambda study: writes.retry(study, 1),
    "cancel": lambda study: writes.cancel(study, 1),
    "cancel_all": lambda study: writes.cancel_all(study),
    "tag": lambda study: writes.tag(study, "cnn", 0, "new"),
    "tag_all": lambda study: writes.tag_all(study, "cnn", [0, 1], "new"),
    "decide": lambda study: writes.decide(study, [1, 2], "remove"),
    "decide again": lambda study: writes.decide(study, [0, 1], "keep"),
    "undo_decision": lambda study: writes.undo_decision(study, 0),
    "untag": lambda study: writes.untag(study, "cnn", 0, "odd"),
    "note": lambda study: writes.note(study, "cnn", 0, "words"),
    "undo": lambda study: writes.undo(study, "cnn", 0),
    "save_slice": lambda study: writes.save_slice(study, "mine", {}),
    "delete_slice": lambda study: writes.delete_slice(study, saved_slices(study)[0][0]),
    "keep_set": lambda study: writes.keep_set(study, [1, 2], "some"),
}
OF_OTHERS = {
    *("decide again", "undo_decision", "cancel", "cancel_all", "untag", "undo", "delete_slice"),
}
"""What changes things that someone else made, or that nobody is known to have made."""


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("role", ["viewer", "editor", "owner"])
def test_each_change_takes_its_role_and_is_recorded(
    study: Study, monkeypatch: pytest.MonkeyPatch, name: str, role: str
) -> None:
    monkeypatch.setenv(ROLE_VARIABLE, role)
    before = state(study)
    if role == "viewer" or (role == "editor" and name in OF_OTHERS):
        with pytest.raises(NotAllowed, match=f"Your role here is {role}"):
            WRITES[name](study)
        assert state(study) == before
        assert [one.outcome for one in entries(study.root, 9)] == ["refused"]
    else:
        WRITES[name](study)
        assert [(one.who, one.outcome) for one in entries(study.root, 9)] == [(role, "done")]


def test_people_change_what_is_their_own(study: Study, login: Callable[..., None]) -> None:
    ada = Person("ada@example.org", "Ada", "editor")
    eve = Person("eve@example.org", "Eve", "editor")
    login(ada)
    number = writes.submit(study, "build", {"workers": 1})
    writes.tag(study, "cnn", 1, "mine")
    writes.save_slice(study, "ours", {})
    (ours,) = [one for one in saved_slices(study)[0] if one.name == "ours"]
    login(eve)
    for change in (
        lambda: writes.cancel(study, number),
        lambda: writes.untag(study, "cnn", 1, "mine"),
        lambda: writes.undo(study, "cnn", 1),
        lambda: writes.delete_slice(study, ours),
    ):
        with pytest.raises(NotAllowed, match="takes an owner"):
            change()
    login(ada)
    writes.cancel(study, number)
    writes.untag(study, "cnn", 1, "mine")
    writes.delete_slice(study, ours)
    assert queue.job(study.root, number).status == "cancelled"
    recorded = entries(study.root, 99)
    assert {one.who for one in recorded} == {"ada@example.org", "eve@example.org"}
    assert sum(one.outcome == "refused" for one in recorded) == 4


def test_viewers_may_what_is_granted(login: Callable[..., None]) -> None:
    login(Person("v@example.org", "V", "viewer"), viewers_may=("write",))
    assert why_not("write") is None
    assert why_not("run") is not None
    assert why_not("write", "other@example.org") is not None


@pytest.mark.parametrize(
    ("user", "role"),
    [
        ({"email": "Ada@Example.org"}, "owner"),
        ({"email": "bob@example.org"}, "editor"),
        ({"email": "eve@example.net"}, "viewer"),
        ({"email": "ada@example.org", "email_verified": False}, "viewer"),
        ({"email": "ada@example.org@evil.net"}, "viewer"),
        ({}, "viewer"),
    ],
)
def test_roles_of_addresses_and_domains(user: dict[str, Any], role: str) -> None:
    roles: dict[str, Any] = {"ada@example.org": "owner", "@example.org": "editor"}
    assert Login((), (), "s", roles).role_of(user) == role


def test_only_one_module_of_the_dashboard_writes() -> None:
    """Every other one gets these functions from `dashboard.writes`, which checks the role."""
    changing = {
        "engine.running.jobs.queue": {"submit", "cancel", "cancel_all", "retry", "prune"},
        "engine.study.tags": {"tag", "untag", "note", "undo"},
        "engine.study.decisions": {"decide", "undo"},
        "engine.study.slices": {"save_slice", "delete_slice"},
        "engine.study.removal_sets": {"keep_set"},
        "engine.exchange.uploads.keeping": {"accept", "accept_files", "rename", "delete"},
    }
    for path in DASHBOARD.rglob("*.py"):
        if path.name == "writes.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in changing:
                names = {one.name for one in node.names}
                assert not names & changing[node.module], f"{path} imports {names}"
            if isinstance(node, ast.ImportFrom) and node.module in {
                name.rpartition(".")[0] for name in changing
            }:
                modules = {f"{node.module}.{one.name}" for one in node.names}
                assert not modules & changing.keys(), f"{path} imports {modules}"


def test_a_viewer_opens_a_set_that_is_saved(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep_set(study, [1, 2], "some")
    monkeypatch.setenv(ROLE_VARIABLE, "viewer")
    assert writes.keep_set(study, [2, 1], "some").key == kept.key
    assert entries(study.root, 9) == []


def test_the_audit_log_is_rotated(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.study import audit_log

    monkeypatch.setattr(audit_log, "LARGEST", 1000)
    for number in range(200):
        audit_log.record(study.root, "ada", f"{number} " + "x" * 1000 + "\n", "done")
    files = sorted((study.root / "audit").glob("*.jsonl"))
    assert len(files) == audit_log.FILES
    assert all(path.stat().st_size <= 1000 for path in files)
    assert [one.what.split()[0] for one in entries(study.root, 3)] == ["199", "198", "197"]


def test_owners_see_the_audit_log(
    visit: Any, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes.note(study, "cnn", 0, "words")
    assert "note on test row 0" in str(visit(study, "jobs").dataframe[0].value)
    monkeypatch.setenv(ROLE_VARIABLE, "editor")
    assert not visit(study, "jobs").dataframe


# --- caps -----------------------------------------------------------------------------------------


def test_the_queue_has_room_for_everyone(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST_WAITING", 6)
    monkeypatch.setattr(queue, "MOST_WAITING_EACH", 3)

    def submit(number: int, who: str) -> int:
        return queue.submit(study, "build", {"workers": number}, who=who)

    for number in range(3):
        submit(number + 1, "ada")
    with pytest.raises(DataloupeError, match="the most for one person"):
        submit(9, "ada")
    submit(4, "eve")
    submit(5, "eve")
    with pytest.raises(DataloupeError, match="the most there can be"):
        submit(6, "eve")
    assert queue.cancel_all(study.root) == 6
    submit(6, "eve")


def test_ended_jobs_and_their_logs_are_pruned(study: Study) -> None:
    from engine.store import layout

    numbers = [queue.submit(study, "build", {"workers": n + 1}) for n in range(5)]
    for number in numbers[:-1]:
        layout.job_log_file(study.root, number).write_text("log")
        queue.cancel(study.root, number)
    assert queue.prune(study.root, keep=2) == 2
    left = [one.id for one in jobs(study.root)]
    assert left == [numbers[4], numbers[3], numbers[2], 1]
    assert not layout.job_log_file(study.root, numbers[0]).exists()
    assert layout.job_log_file(study.root, numbers[3]).exists()
    assert queue.prune(study.root, days=-1) == 2
    assert [one.status for one in jobs(study.root)] == ["waiting", "waiting"]


def test_a_prediction_has_room_for_some_tags_and_notes(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.study import removal_sets, tags

    monkeypatch.setattr(tags, "MOST_TAGS", 2)
    monkeypatch.setattr(tags, "MOST_NOTES", 1)
    tags.tag(study, "cnn", 0, "second")
    with pytest.raises(DataloupeError, match="at most 2 tags"):
        tags.tag(study, "cnn", 0, "third")
    tags.note(study, "cnn", 0, "one")
    with pytest.raises(DataloupeError, match="at most 1 notes"):
        tags.note(study, "cnn", 0, "two")
    monkeypatch.setattr(tags, "MOST_CHANGES", 3)
    with pytest.raises(DataloupeError, match="3 changes"):
        tags.tag(study, "cnn", 1, "more")
    monkeypatch.setattr(removal_sets, "MOST_SETS", 1)
    keep_set(study, [1], "first")
    with pytest.raises(DataloupeError, match="the most there can be"):
        keep_set(study, [2], "second")
    keep_set(study, [1], "first")


def test_without_a_login_the_role_is_that_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from dashboard.__main__ import role_without_login

    st.cache_resource.clear()
    assert role_without_login("127.0.0.1", None) == "owner"
    assert role_without_login("0.0.0.0", None) == "viewer"
    assert role_without_login("0.0.0.0", "editor") == "editor"
    monkeypatch.setenv(ROLE_VARIABLE, "nonsense")
    assert permissions.person().role == "viewer"
