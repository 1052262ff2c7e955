"""The frame of the pages: Streamlit's own, with our script first."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import dashboard
from dashboard.location import STATE
from dashboard.routes import routes
from dashboard.workspaces import OLD_ADDRESSES, PAGES


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    folder: Path = tmp_path_factory.mktemp("frame")
    return TestClient(Starlette(routes=routes(folder)))


def test_every_page_learns_where_its_server_is(client: TestClient) -> None:
    """Else Streamlit asks below the page's own address first, which logs two 404s."""
    for page in PAGES:
        answer = client.get(f"/{page.address}")
        assert answer.status_code == 200
        first = answer.text.index("<script")
        assert answer.text[first:].startswith('<script src="/dataloupe/frame.js">')
    script = client.get("/dataloupe/frame.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert 'BACKEND_BASE_URL: location.origin + ""' in script.text

    assert all(f'"{name}"' in script.text for name in STATE)


@pytest.mark.parametrize("old", OLD_ADDRESSES)
def test_an_old_address_leads_on_with_its_parameters(client: TestClient, old: str) -> None:
    """Streamlit has no page of that name: it would say so in a dialog."""
    answer = client.get(f"/{old}?algorithm=mlp&label=a%26b", follow_redirects=False)
    assert answer.status_code == 307
    assert answer.headers["location"] == f"./{OLD_ADDRESSES[old]}?algorithm=mlp&label=a%26b"
    assert OLD_ADDRESSES[old] in {page.address for page in PAGES}


def test_every_page_is_in_one_workspace() -> None:
    views = Path(dashboard.__file__).parent / "views"
    files = {f"views/{path.name}" for path in views.glob("[a-z]*.py")}
    assert sorted(page.file for page in PAGES) == sorted(files)
    assert len({page.address for page in PAGES}) == len(PAGES)
