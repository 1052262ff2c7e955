"""The frame of the pages: Streamlit's own, with our script first."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboard.routes import VIEWS, routes

PAGES = sorted(path.stem.replace("_", "-") for path in VIEWS.glob("[a-z]*.py"))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    folder: Path = tmp_path_factory.mktemp("frame")
    return TestClient(Starlette(routes=routes(folder)))


def test_every_page_learns_where_its_server_is(client: TestClient) -> None:
    """Else Streamlit asks below the page's own address first, which logs two 404s."""
    for page in PAGES:
        answer = client.get(f"/{page}")
        assert answer.status_code == 200
        first = answer.text.index("<script")
        assert answer.text[first:].startswith('<script src="/dataloupe/frame.js">')
    script = client.get("/dataloupe/frame.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert 'BACKEND_BASE_URL: location.origin + ""' in script.text
