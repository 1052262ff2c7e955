"""The frame of the pages: Streamlit's own, with our script first."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboard.routes import VIEWS, routes

PAGES = sorted(
    path.stem.replace("_", "-") for path in VIEWS.glob("[a-z]*.py") if path.stem != "overview"
)


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


def test_overview_by_its_name_leads_to_the_root(client: TestClient) -> None:
    """Streamlit has no page of that name: it would say so in a dialog."""
    answer = client.get("/overview?algorithm=mlp", follow_redirects=False)
    assert answer.status_code == 307
    assert answer.headers["location"] == "./?algorithm=mlp"
