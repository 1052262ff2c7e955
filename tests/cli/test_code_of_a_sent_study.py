"""A study that somebody sends runs no code, whatever is planted in it and whatever is opened."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import Study
from engine.cli import trusting
from engine.cli.main import main
from engine.running import launch
from engine.running.processes import run_jobs
from engine.store.trust import is_trusted, trusted_studies
from engine.study.trust import named_code
from tests.builders.copies import copy_of
from tests.builders.studies_that_name_code import WAYS, Planted, try_way

SENT = 'architecture = "python:sent:net"\narchitecture_options = { width = 3 }'


@pytest.mark.parametrize("way", WAYS)
def test_no_door_runs_it(small_study: Study, tmp_path: Path, way: str) -> None:
    assert try_way(small_study, tmp_path, way) == []


@pytest.fixture
def sent(small_study: Study, tmp_path: Path) -> Planted:
    at = Planted(copy_of(small_study, tmp_path / "sent").root, tmp_path / "ran")
    WAYS["a module in the study"](at)
    return at


@pytest.mark.parametrize("view", ["live", "jobs", "overview", "provenance", "what_if", "brittle"])
def test_pages_run_nothing(visit: Any, sent: Planted, view: str) -> None:
    app = visit(Study.open(sent.root), view)
    if view == "live":
        assert f"dataloupe trust {sent.root}" in "".join(html.value for html in app.get("html"))
    if view == "jobs" and "build" in [button.key for button in app.button]:
        app.button(key="build").click().run()
        assert not app.exception
    assert not sent.marker.exists()


def test_no_process_searches_the_current_folder(
    sent: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a study that was sent, with modules named like ones that every process imports."""
    WAYS["modules that shadow installed ones"](sent)
    monkeypatch.chdir(sent.root)
    results: list[str] = []
    run_jobs(os.path.basename, ["a/b"], 1, lambda job, result: results.append(result))
    assert results == ["b"]
    launch.launch(sent.root, open_browser=False)
    launch._stop(launch._children.pop())
    assert not sent.marker.exists()


def test_trust_says_what_is_named_and_is_asked_for(
    sent: Planted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = named_code(Study.open(sent.root))[0].code
    assert main(["build", str(sent.root)]) == 2
    found = capsys.readouterr()
    assert found.err.count("\n") == 1
    assert "algorithms.mlp.architecture = python:sent:net" in found.err
    monkeypatch.setattr(trusting, "_somebody_is_there", lambda: True)
    for answer in ("", "n", "no", "nein"):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        assert main(["trust", str(sent.root)]) == 2
        assert not is_trusted(sent.root, code)
    assert "algorithms.mlp.architecture = python:sent:net" in capsys.readouterr().out
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert main(["trust", str(sent.root)]) == 0
    assert is_trusted(sent.root, code)
    assert main(["trust", "--list"]) == 0
    assert str(sent.root) in capsys.readouterr().out
    assert main(["trust", "--revoke", str(sent.root)]) == 0
    assert not is_trusted(sent.root, code)
    monkeypatch.setattr(trusting, "_somebody_is_there", lambda: False)
    assert main(["trust", "--yes", str(sent.root)]) == 0
    assert is_trusted(sent.root, code)


def test_the_users_own_words_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `init`, and of Python code that says so; the study was not sent by anybody."""
    assert main(["init", str(tmp_path / "own"), "--data", "python:mine:data"]) == 0
    assert str(tmp_path / "own") in trusted_studies()
    text = (tmp_path / "own" / "study.toml").read_text()
    assert not trusted_studies().get(str(Study.create(tmp_path / "read", text).root))
    assert str(Study.open(tmp_path / "read", trust=True).root) in trusted_studies()
    assert str(Study.create(tmp_path / "said", text, trust=True).root) in trusted_studies()
    assert main(["init", str(tmp_path / "plain")]) == 0
    assert str(tmp_path / "plain") not in trusted_studies()


def test_trusted_code_runs(sent: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the tests above prove nothing."""
    monkeypatch.chdir(sent.root)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    assert main(["trust", "--yes", str(sent.root)]) == 0
    main(["build", str(sent.root), "--workers", "0", "--rebuild", "checkpoints"])
    sys.modules.pop("sent", None)
    assert sent.marker.exists()
