"""The server process: it responds, reports why it cannot start, and never outlives its parent."""

from __future__ import annotations

import http.client
import io
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboard.read import sprite_sheets
from dashboard.read.picture_urls import gathered_url
from dashboard.routes import routes
from engine.api import Study
from engine.data import crop
from engine.running import launch
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.study.thumbnails import read_thumbnail
from tests.builders.synthetic_study import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("studies") / "study")


@pytest.fixture(scope="module")
def port(study: Study) -> Iterator[int]:
    """The port of a server that runs for all tests of this file."""
    url = launch.launch(study.root, open_browser=False)
    yield int(url.rsplit(":", 1)[1])
    launch._stop(launch._children.pop())


def get(port: int, path: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), response.read()


def test_sprite_sheets_are_served_with_immutable_caching(study: Study, port: int) -> None:
    data = study.dataset.fingerprint
    status, headers, body = get(port, f"/dataloupe/sprites/{data}/test/0.webp")
    assert status == 200
    assert headers["content-type"] == "image/webp"
    assert "immutable" in headers["cache-control"]
    assert body == layout.sprite_file(study.root, "test", 0).read_bytes()


def test_a_sheet_of_chosen_rows_is_served(study: Study, port: int) -> None:
    data = study.dataset.fingerprint
    status, headers, body = get(port, f"/dataloupe/sprites/{data}/test/of/7-0-3.webp")
    assert status == 200
    assert headers["content-type"] == "image/webp"
    assert "immutable" in headers["cache-control"]
    with Image.open(io.BytesIO(body)) as sheet:
        for place, row in enumerate((7, 0, 3)):
            np.testing.assert_array_equal(
                crop(sheet, place, study.dataset.cell), read_thumbnail(study, "test", row)
            )


def test_a_sheet_is_prepared_before_its_request_and_a_failed_one_is_tried_again(
    tmp_path: Path,
) -> None:
    study = write_study(tmp_path / "study")
    address = gathered_url(study, "test", (7, 0, 3))
    app = TestClient(Starlette(routes=routes(study.root)))
    made = sprite_sheets.gathered.cache_info()
    assert app.get(address).status_code == 200
    assert sprite_sheets.gathered.cache_info().misses == made.misses

    file = layout.sprite_file(study.root, "train", 0)
    content = file.read_bytes()
    file.unlink()
    address = gathered_url(study, "train", (1, 2))
    assert app.get(address).status_code == 404
    file.write_bytes(content)
    assert app.get(address).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/dataloupe/sprites/0000000000000000/test/of/0.webp",
        "/dataloupe/sprites/{data}/secret/of/0.webp",
        "/dataloupe/sprites/{data}/test/of/99999.webp",
        "/dataloupe/sprites/{data}/test/of/1-.webp",
        "/dataloupe/sprites/{data}/test/of/" + "1-" * 64 + "1.webp",
        "/dataloupe/sprites/{data}/test/of/1" + "0" * 5000 + ".webp",
        "/dataloupe/sprites/0000000000000000/test/0.webp",
        "/dataloupe/sprites/{data}/test/1.webp",
        "/dataloupe/sprites/{data}/secret/0.webp",
        "/dataloupe/sprites/{data}/test/-1.webp",
        "/dataloupe/sprites/{data}/test/..%2f..%2fdataset.json.webp",
        "/dataloupe/fonts/..%2f..%2f__main__.py",
        "/dataloupe/fonts/missing.woff2",
    ],
)
def test_no_other_files_are_served(study: Study, port: int, path: str) -> None:
    status, headers, _ = get(port, path.format(data=study.dataset.fingerprint))
    # An address without a route gets the app, which then reports that there is no such page.
    assert status in (400, 404) or headers["content-type"].startswith("text/html")


def test_fonts_are_served(port: int) -> None:
    status, headers, _ = get(port, "/dataloupe/fonts/inter-latin.woff2")
    assert status == 200
    assert "font" in headers["content-type"]


def test_the_error_names_a_port_in_use(study: Study, port: int) -> None:
    with pytest.raises(DataloupeError, match=rf"Port {port} .*in use.*--port"):
        launch.serve(study.root, port=port, open_browser=False)


def test_a_server_whose_port_is_taken_exits_with_one_line(study: Study, port: int) -> None:
    command = [sys.executable, "-m", "dashboard", str(study.root), "--port", str(port)]
    with subprocess.Popen(
        [*command, "--end-with-input"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        lines = child.stderr.read().strip().splitlines()
    assert child.returncode == 1
    assert len(lines) == 1
    assert f"Port {port} is not available" in lines[0]


def test_the_default_port_is_a_free_one(port: int) -> None:
    assert launch._free_port("127.0.0.1") != port


def test_launch_tries_another_port_if_a_server_takes_the_first(
    study: Study, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, believed_free = launch._free_port, [port]
    monkeypatch.setattr(
        launch,
        "_free_port",
        lambda address: believed_free.pop() if believed_free else real(address),
    )
    url = launch.launch(study.root, open_browser=False)
    assert not believed_free
    assert int(url.rsplit(":", 1)[1]) != port
    launch._stop(launch._children.pop())


@pytest.mark.parametrize(
    ("address", "port", "message"),
    [
        ("127.0.0.1", 0, "does not exist"),
        ("127.0.0.1", 70_000, "does not exist"),
        ("no.such.host.invalid", 8600, "not an address"),
    ],
)
def test_an_impossible_address_or_port_is_refused(
    study: Study, address: str, port: int, message: str
) -> None:
    with pytest.raises(DataloupeError, match=message):
        launch.launch(study.root, port=port, address=address, open_browser=False)


def test_the_server_exits_with_its_parent(study: Study) -> None:
    script = (
        "import sys; from engine.running.launch import launch;"
        f"print(launch({str(study.root)!r}, open_browser=False), flush=True);"
        "sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    port = int(parent.stdout.readline().strip().rsplit(":", 1)[1])
    assert get(port, "/_stcore/health")[0] == 200
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.1)
    pytest.fail("The server outlived the process that launched it.")


def test_the_engine_does_not_import_streamlit(tmp_path: Path) -> None:
    script = "import sys, engine.running.launch; assert 'streamlit' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
