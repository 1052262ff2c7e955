"""The frame of the pages: Streamlit's own, with our script first and our style last."""

from __future__ import annotations

import re
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


def test_pages_have_our_style_and_icon_in_the_frame(client: TestClient) -> None:
    """No page sends them, and the style comes after Streamlit's own, which is in the head."""
    text = client.get("/").text
    links = re.findall(r'<link rel="stylesheet" href="(/dataloupe/[^"]*)">', text)
    assert len(links) == 1
    assert text.index("<body>") < text.index(links[0])
    style = client.get(links[0])
    assert style.headers["content-type"].startswith("text/css")
    assert "immutable" in style.headers["cache-control"]
    for path in (Path(dashboard.__file__).parent / "style").glob("*.css"):
        assert path.read_text(encoding="utf-8") in style.text
    assert '<link rel="icon" href="data:image/svg+xml;base64,' in text
    assert "shortcut icon" not in text


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
