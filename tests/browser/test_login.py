"""Signing in with a real provider of OpenID Connect, and what is closed without."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from playwright.sync_api import BrowserContext, expect

from engine.api import Study
from tests.browser.chromium import server
from tests.browser.provider import CLIENT, provider

pytestmark = pytest.mark.browser


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_only_who_is_allowed_sees_the_study(
    desktop: BrowserContext, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    fingerprint = study.dataset.fingerprint
    with provider() as known:
        secrets = tmp_path / ".streamlit" / "secrets.toml"
        secrets.parent.mkdir()
        secrets.write_text(
            f"""
[auth]
redirect_uri = "http://127.0.0.1:{port}/oauth2callback"
cookie_secret = "{"s" * 40}"
client_id = "{CLIENT}"
client_secret = "x"
server_metadata_url = "{known.url}/.well-known/openid-configuration"

[dataloupe]
allow = ["Ada@example.org", "@example.com"]

[dataloupe.roles]
"@example.org" = "editor"
"""
        )
        monkeypatch.chdir(tmp_path)
        with server(study.root, port) as url:
            page = desktop.new_page()
            sheets: list[str] = []
            page.on("request", lambda r: sheets.append(r.url) if "/sprites/" in r.url else None)
            page.goto(f"{url}/explore")
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
            assert study.spec.name not in page.inner_text("body")
            assert page.locator("a.card").count() == 0
            for path in (f"dataloupe/sprites/{fingerprint}/test/0.webp", "_stcore/metrics"):
                with pytest.raises(HTTPError, match="401"):
                    urlopen(f"{url}/{path}")

            known.person = {"sub": "2", "name": "Eve", "email": "eve@example.net"}
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_text("not shared with you")).to_be_visible()
            expect(page.get_by_text("You are signed in as Eve")).to_be_visible()
            assert study.spec.name not in page.inner_text("body")
            assert not sheets
            page.get_by_role("button", name="Sign out").click()

            known.person = {"sub": "1", "name": "Ada", "email": "ada@example.org"}
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator("a.card").first).to_be_visible()
            page.goto(f"{url}/explore")
            expect(page.locator("a.card")).to_have_count(120)
            assert sheets
            assert not [sheet for sheet in sheets if fingerprint in sheet]
            page.goto(f"{url}/live")
            page.get_by_role("button", name="Ada").click()
            expect(page.get_by_text("Your role here: editor.")).to_be_visible()
            page.goto(f"{url}/auth/logout")  # as a link of another site would
            page.goto(f"{url}/explore")
            page.get_by_role("button", name="Ada").click()
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
            page.close()
