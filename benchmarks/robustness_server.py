"""What can strangers do to a server that others use, too?

`unsigned_bytes` sends large files to every kind of route of a server with a login, without signing
in, and counts what the server keeps of them on disk and in memory. `slow_pictures` asks live
queries as an ordinary person while others send pictures that are slow to read, again and again, and
measures how long that person waits.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import socket
import statistics
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from benchmarks._report import log, report
from benchmarks._server import ROOT, serving
from dashboard.read.live_queries import Workers
from engine.api import Study
from engine.applications.live import Query
from engine.store.errors import DataloupeError
from tests.builders.synthetic_study import write_study
from tests.conftest import SMALL_STUDY

MIB = 2**20
BODY_BYTES = 400 * MIB
MESSAGE_BYTES = 100 * MIB
SOCKETS = 5
NOISE_BYTES = 24 * MIB
"""What a server's memory grows by while it answers small requests."""
SECRETS = """
[auth]
redirect_uri = "http://127.0.0.1/oauth2callback"
cookie_secret = "{secret}"
client_id = "x"
client_secret = "x"
server_metadata_url = "http://127.0.0.1:9/.well-known/openid-configuration"
"""
ROUTES = (
    ("PUT", "/_stcore/upload_file/{session}/00000000-0000-0000-0000-000000000000"),
    ("POST", "/_stcore/upload_file/{session}/x"),
    ("POST", "/_stcore/metrics"),
    ("POST", "/_stcore/agent/interact"),
    ("POST", "/dataloupe/sprites/x/test/0.webp"),
    ("POST", "/media/x"),
    ("POST", "/auth/logout"),
    ("POST", "/"),
)
ATTACKERS = 3
ATTACK_SECONDS = 25.0


def measure() -> dict[str, Any]:
    """Both measurements."""
    return unsigned_bytes() | slow_pictures()


def unsigned_bytes() -> dict[str, Any]:
    """Bytes that a server keeps of what is sent without signing in."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        study = write_study(Path(folder) / "study", n_train=40, n_test=20)
        secrets = Path(folder) / ".streamlit" / "secrets.toml"
        secrets.parent.mkdir()
        secrets.write_text(SECRETS.format(secret=os.urandom(20).hex()))
        files = Path(folder) / "files"
        files.mkdir()
        with (
            _environment(TMPDIR=str(files), PYTHONPATH=str(ROOT)),
            serving(study.root) as server,
            _unsigned_session(server.url) as (session, cookie),
        ):
            for method, route in ROUTES:
                _send(server.url, method, route.format(session=session), cookie, 1000, False)
            before = server.memory_mb("RssAnon") * 1e6
            answers: dict[str, int] = {}
            sent = 0
            for method, route in ROUTES:
                for chunked in (False, True):
                    path = route.format(session=session)
                    status, count = _send(server.url, method, path, cookie, BODY_BYTES, chunked)
                    answers[f"{method} {route}{' chunked' if chunked else ''}"] = status
                    sent += count
            for _ in range(SOCKETS):
                sent += _talk(server.url, cookie)
            grown = server.memory_mb("RssAnon") * 1e6 - before
            on_disk = sum(one.stat().st_size for one in files.rglob("*") if one.is_file())
            on_disk += _deleted_bytes(server.pid)
    log(f"offered {2 * len(ROUTES) * BODY_BYTES:,} bytes, {sent:,} left; memory grew {grown:,.0f}")
    in_memory = 0 if grown < NOISE_BYTES else round(grown)
    return {
        "unsigned_bytes_kept": on_disk + in_memory,
        "unsigned_on_disk": on_disk,
        "unsigned_memory_growth": round(grown),
        "unsigned_taken": sorted(name for name, status in answers.items() if status < 400),
        "unsigned_answers": answers,
    }


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _websocket(url: str, cookie: str) -> ClientConnection:
    """A connection as a browser makes it."""
    return connect(
        f"ws://{urlsplit(url).netloc}/_stcore/stream",
        origin=Origin(url),
        additional_headers={"Cookie": cookie},
        subprotocols=[Subprotocol("streamlit"), Subprotocol(cookie.partition("=")[2])],
        max_size=None,
    )


def _talk(url: str, cookie: str) -> int:
    """Send a large message without signing in, with the state of a widget; return its bytes."""
    message = BackMsg()
    state = message.rerun_script.widget_states.widgets.add()
    state.id, state.string_value = "$$ID-x-own_text", "x" * MESSAGE_BYTES
    content = message.SerializeToString()
    with contextlib.suppress(OSError, ConnectionClosed), _websocket(url, cookie) as ws:
        ws.send(content)
        while True:
            ws.recv(timeout=10)
    return len(content)


@contextlib.contextmanager
def _unsigned_session(url: str) -> Iterator[tuple[str, str]]:
    """A session of a browser that did not sign in: its id, and its cookie."""
    client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    client.request("GET", "/_stcore/health")
    cookie = (client.getresponse().getheader("Set-Cookie") or "").partition(";")[0]
    with _websocket(url, cookie) as ws:
        start = BackMsg()
        start.rerun_script.query_string = ""
        ws.send(start.SerializeToString())
        session = ""
        while not session:
            message = ForwardMsg()
            message.ParseFromString(ws.recv(timeout=20))  # type: ignore[arg-type]
            session = message.new_session.initialize.session_id
        ask = BackMsg()
        ask.file_urls_request.request_id = "1"
        ask.file_urls_request.file_names.append("a")
        ask.file_urls_request.session_id = session
        ws.send(ask.SerializeToString())
        yield session, cookie


def _send(
    url: str, method: str, path: str, cookie: str, size: int, chunked: bool
) -> tuple[int, int]:
    """Send a body until the server stops reading it: (status, bytes sent)."""
    host, port = urlsplit(url).netloc.split(":")
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {cookie}\r\n"
    head += f"X-Xsrftoken: {cookie.partition('=')[2]}\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n" if chunked else f"Content-Length: {size}\r\n\r\n"
    first = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
    sent = 0
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(head.encode())
            block = first + bytes(MIB - len(first))
            while sent < size:
                part = block[: size - sent]
                framed = b"%x\r\n%s\r\n" % (len(part), part) if chunked else part
                connection.sendall(framed)
                sent += len(part)
                block = bytes(MIB)
            if chunked:
                connection.sendall(b"0\r\n\r\n")
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(connection.recv(4096).split()[1]), sent
    return 599, sent  # the connection was closed without an answer


def _deleted_bytes(pid: int) -> int:
    """Bytes of files that a process holds open and that have no name any more."""
    total = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(entry.readlink()).endswith("(deleted)"):
                total += entry.stat().st_size
    return total


# --- slow pictures ------------------------------------------------------------------------------


def slow_pictures() -> dict[str, Any]:
    """How long somebody waits for live queries while others send slow pictures."""
    with tempfile.TemporaryDirectory() as folder:
        study = Study.create(Path(folder) / "study", SMALL_STUDY)
        study.build(workers=0)
        workers = Workers()
        try:
            return _attack(workers, study)
        finally:
            workers.end()


def _attack(workers: Workers, study: Study) -> dict[str, Any]:
    mine = ordinary_pictures()
    slow = slow_files()

    def ask(who: str, content: bytes) -> None:
        workers.ask(Query(study.root, "mlp", {"picture": content}), who)

    for content in mine:
        ask("victim", content)  # loads the models
    alone = [_seconds(ask, "victim", content) for content in mine * 3]
    ending = threading.Event()
    answers: dict[str, str] = {}

    def attack(who: str) -> None:
        while not ending.is_set():
            for name, content in slow.items():
                try:
                    ask(who, content)
                    answers[name] = "answered"
                except DataloupeError as error:
                    answers[name] = str(error)

    threads = [threading.Thread(target=attack, args=(f"attacker {n}",)) for n in range(ATTACKERS)]
    for thread in threads:
        thread.start()
    times = []
    end = time.monotonic() + ATTACK_SECONDS
    while time.monotonic() < end:
        for content in mine:
            times.append(_seconds(ask, "victim", content))
            time.sleep(0.1)
    ending.set()
    for thread in threads:
        thread.join()
    log(f"{len(times)} queries; the slow pictures got: {answers}")
    return {
        "slow_picture_victim_p95_s": round(float(np.quantile(times, 0.95)), 2),
        "slow_picture_victim_median_s": round(statistics.median(times), 2),
        "slow_picture_alone_median_s": round(statistics.median(alone), 2),
        "slow_picture_queries": len(times),
        "slow_picture_attackers": ATTACKERS,
        "slow_picture_answers": answers,
    }


def _seconds(ask: Any, who: str, content: bytes) -> float:
    start = time.perf_counter()
    ask(who, content)
    return time.perf_counter() - start


def ordinary_pictures() -> list[bytes]:
    """A small PNG and a photo of 12 megapixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    return [
        _saved(picture, "PNG"),
        _saved(picture.resize((4000, 3000), Image.Resampling.BICUBIC), "JPEG"),
    ]


def slow_files() -> dict[str, bytes]:
    """Pictures that take Pillow seconds to minutes, and the slowest that is let through."""
    chunk = struct.pack(">I4s3s", 3, b"tEXt", b"k\0v") + struct.pack(">I", zlib.crc32(b"tEXtk\0v"))
    png = _saved(Image.new("RGB", (32, 32)), "PNG")
    progressive = _saved(Image.new("RGB", (4096, 4096), "gray"), "JPEG", progressive=True)
    scan = progressive.rindex(b"\xff\xda")
    runs = b"\xff\x00" * 16 * 4000 + b"\0\1"
    bmp = struct.pack("<IiiHHIIiiII", 40, 4000, 4000, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024)
    photo = ordinary_pictures()[1]
    large = Image.open(io.BytesIO(photo)).resize((5700, 4300))
    return {
        "bmp in run lengths": b"BM" + struct.pack("<IHHI", 14, 0, 0, 14 + len(bmp)) + bmp + runs,
        "png of 300,000 texts": png[:33] + 300_000 * chunk + png[33:],
        "ppm with a comment of 19 MB": b"P6\n#" + 19_000_000 * b"c" + b"\n2 2\n255\n" + bytes(12),
        "jpeg of 400 scans": progressive[:scan] + 400 * progressive[scan:-2] + progressive[-2:],
        "rgba of 8000 × 8000": _saved(Image.new("RGBA", (8000, 8000)), "PNG"),
        "the slowest within the budget": _saved(large, "JPEG", progressive=True),
    }


def _saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


if __name__ == "__main__":
    print(unsigned_bytes())
    print(slow_pictures())


if __name__ == "__main__":
    report("robustness_server", measure, __doc__ or "")
