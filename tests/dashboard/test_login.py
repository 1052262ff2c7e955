"""Who may see a study: a mistake in the secrets never opens it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard import login
from dashboard.login import Login
from dashboard.read.studies import STUDY_VARIABLE
from engine.store.errors import DataloupeError
from tests.builders.synthetic_study import write_study

APP = Path(__file__).parents[2] / "dashboard" / "app.py"
AUTH = '[auth]\ncookie_secret = "ssssssssssssssssssss"\nclient_id = "x"\n'


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Write a secrets.toml for the server under test."""
    path = tmp_path / ".streamlit" / "secrets.toml"
    path.parent.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    def write(text: str) -> Path:
        path.write_text(text)
        return path

    monkeypatch.chdir(tmp_path)
    login.configured.cache_clear()
    yield write
    login.configured.cache_clear()
    st.secrets._reset()  # Streamlit may have cached these secrets.


@pytest.mark.parametrize(
    ("allow", "user", "may"),
    [
        ((), {}, True),
        (("ada@example.org",), {"email": "Ada@Example.org"}, True),
        (("ada@example.org",), {"email": "bada@example.org"}, False),
        (("ada@example.org",), {}, False),
        (("@example.org",), {"email": "eve@example.org"}, True),
        (("@example.org",), {"email": "eve@evil-example.org"}, False),
        (("@example.org",), {"email": "eve@example.org@evil.net"}, False),
        (("ada@example.org",), {"email": "ada@example.org", "email_verified": False}, False),
        (("ada@example.org",), {"email": "ada@example.org", "email_verified": True}, True),
        (("",), {"email": ""}, False),
    ],
)
def test_who_is_allowed(allow: tuple[str, ...], user: dict[str, Any], may: bool) -> None:
    assert Login((), allow, "s").allows(user) is may


def test_without_secrets_there_is_no_login(secrets: Callable[[str], Path]) -> None:
    assert login.configured() is None
    login.configured.cache_clear()
    secrets('[other]\nkey = "value"\n')
    assert login.configured() is None
    assert login.picture_key("f00d") == "f00d"


def test_providers_and_allowed_users_are_read(secrets: Callable[[str], Path]) -> None:
    secrets(AUTH + '[auth.one]\nclient_id = "a"\n[dataloupe]\nallow = ["@example.org"]\n')
    assert login.configured() == Login(("one",), ("@example.org",), "s" * 20)
    key = login.picture_key("f00d")
    assert key != "f00d"
    assert len(key) == 32
    assert key != login.picture_key("beef")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[auth\n", "cannot be read"),
        ("auth = 3\n", "needs a cookie_secret"),
        ('[auth]\nclient_id = "x"\n', "needs a cookie_secret"),
        (AUTH + '[dataloupe]\nallow = "@example.org"\n', "list of strings"),
    ],
)
def test_a_mistake_in_the_secrets_is_reported(
    secrets: Callable[[str], Path], text: str, message: str
) -> None:
    path = secrets(text)
    with pytest.raises(DataloupeError, match=message) as raised:
        login.configured()
    assert str(path) in str(raised.value)


def test_a_mistake_in_the_secrets_stops_the_server(
    secrets: Callable[[str], Path], tmp_path: Path
) -> None:
    secrets("[auth\n")
    ended = subprocess.run(
        [sys.executable, "-m", "dashboard", str(tmp_path), "--port", "1"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(APP.parent.parent), "HOME": str(tmp_path / "home"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_pages_show_nothing_before_sign_in(
    secrets: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets(AUTH + '[auth.one]\nclient_id = "a"\n[auth.two]\nclient_id = "b"\n')
    study = write_study(tmp_path / "s", name="Very private", n_train=8, n_test=4)
    monkeypatch.setenv(STUDY_VARIABLE, str(study.root))
    app = AppTest.from_file(str(APP), default_timeout=30)
    app.query_params["test"] = "test-0"
    for view in ("overview", "explore", "explain", "training", "provenance"):
        app.switch_page(f"views/{view}.py").run()
        assert not app.exception
        assert "Very private" not in "".join(part.value for part in app.html)
        assert [button.label for button in app.button] == ["Sign in with one", "Sign in with two"]
        assert not app.get("bidi_component")
