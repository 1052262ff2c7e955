"""In front of every route: who gets what, and that nothing of a stranger's is kept."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from streamlit.web.server.starlette.starlette_app_utils import (
    create_signed_value,
    generate_xsrf_token_string,
)
from streamlit.web.server.starlette.starlette_server_config import (
    USER_COOKIE_NAME,
    XSRF_COOKIE_NAME,
)

from dashboard.login import Login
from dashboard.server.guard import MOST_MESSAGE_UNSIGNED, Guard
from dashboard.server.headers import security_headers
from dashboard.server.hosts import is_known, known_hosts
from dashboard.server.uploaded_files import UploadedFiles

SECRET = "s" * 40
LOGIN = Login((), ("ada@example.org",), SECRET)
MIB = 2**20
SOCKET = "ws://127.0.0.1/_stcore/stream"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadedFiles]:
    """Files of sessions; on the page of `waits` is an uploader for files of 1 MiB."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = UploadedFiles(
        "/_stcore/upload_file", {"waits": MIB, "other": MIB}.get, 2 * MIB, 3 * MIB
    )
    yield found
    found.close()


Serve = Callable[..., TestClient]


@pytest.fixture
def serve(files: UploadedFiles) -> Serve:
    """A client of routes that tell what reached them, behind the guard."""

    async def reached(request: Request) -> Response:
        body = await request.body()
        return PlainTextResponse(f"{request.method} {request.url.path} {len(body)}")

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await socket.send_text(str(len(await socket.receive_bytes())))

    methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
    routes = [
        WebSocketRoute("/_stcore/stream", echo),
        Mount("/", routes=[Route("/{path:path}", reached, methods=methods)]),
    ]

    def client(login: Login | None = LOGIN, address: str = "127.0.0.1") -> TestClient:
        guard = Middleware(
            Guard,
            login=login,
            hosts=known_hosts(address, ["loupe.example.org"]),
            local=address == "127.0.0.1",
            headers=security_headers(),
            files=lambda: files,
        )
        return TestClient(Starlette(routes=routes, middleware=[guard]), "http://127.0.0.1")

    return client


def signed(secret: str = SECRET, **claims: Any) -> dict[str, str]:
    user = {"email": "ada@example.org", "is_logged_in": True, **claims}
    value = create_signed_value(secret, USER_COOKIE_NAME, json.dumps(user))
    return {USER_COOKIE_NAME: value.decode()}


OPEN = (
    "/",
    "/explore",
    "/static/js/index.js",
    "/static/media/font.woff2",
    "/favicon.png",
    "/_stcore/health",
    "/_stcore/host-config",
    "/explore/_stcore/health",
    "/auth/login",
    "/oauth2callback",
    "/dataloupe/fonts/a.woff2",
    "/dataloupe/style.css",
    "/dataloupe/server/token",
)
CLOSED = (
    "/_stcore/metrics",
    "/_stcore/upload_file/waits/id",
    "/_stcore/script-health-check",
    "/_stcore/bidi-components/a/b.js",
    "/_stcore/agent/interact",
    "/_stcore/agent/mcp",
    "/_stcore/agent/openapi.json",
    "/_stcore/health/more",
    "/media/abc.png",
    "/component/a/index.html",
    "/app/static/secret.txt",
    "/dataloupe/sprites/key/test/0.webp",
    "/dataloupe/sprites/key/test/of/1-2.webp",
    "/dataloupe/fonts/more/sprites",
    "/dataloupe/anything/new",
    "/base/_stcore/upload_file/waits/id",
    "/base/media/abc.png",
    "/api",
    "/api/explain",
    "/api/openapi.json",
    "/base/api/explain",
    "/auth/anything",
)


@pytest.mark.parametrize("path", OPEN)
def test_the_page_that_offers_to_sign_in_can_be_loaded(serve: Serve, path: str) -> None:
    assert serve().get(path).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    "cookies",
    [
        {},
        signed("another secret" * 4),
        signed(email="eve@example.org"),
        signed(email_verified=False),
        signed(is_logged_in=False),
        {USER_COOKIE_NAME: "nonsense"},
    ],
    ids=["none", "other secret", "other person", "unverified", "signed out", "nonsense"],
)
def test_nothing_else_answers_without_a_valid_cookie(
    serve: Serve, path: str, cookies: dict[str, str]
) -> None:
    client = serve()
    client.cookies.update(cookies)
    assert client.get(path).status_code == 401


@pytest.mark.parametrize("path", CLOSED)
def test_who_is_signed_in_reaches_every_route(serve: Serve, path: str) -> None:
    client = serve()
    client.cookies.update(signed())
    assert client.get(path).status_code == 200
    assert serve(None).get(path).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", [*OPEN, *CLOSED])
def test_a_body_of_a_stranger_is_not_read(serve: Serve, path: str, method: str) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        sent += 1
        yield b"x" * 1000

    assert serve().request(method, path, content=body()).status_code == 401


def test_a_websocket_without_sign_in_takes_small_messages_only(serve: Serve) -> None:
    with serve().websocket_connect(SOCKET) as socket:
        socket.send_bytes(b"x" * MOST_MESSAGE_UNSIGNED)
        assert socket.receive_text() == str(MOST_MESSAGE_UNSIGNED)
        socket.send_bytes(b"x" * (MOST_MESSAGE_UNSIGNED + 1))
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
        assert closed.value.code == 1009
    client = serve()
    client.cookies.update(signed())
    with client.websocket_connect(SOCKET) as socket:
        socket.send_bytes(b"x" * MIB)
        assert socket.receive_text() == str(MIB)


# --- the name of the server -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "host", "known"),
    [
        ("127.0.0.1", "127.0.0.1:8501", True),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "LOCALHOST.:1", True),
        ("127.0.0.1", "[::1]:8501", True),
        ("127.0.0.1", "127.1.2.3", True),
        ("127.0.0.1", "loupe.example.org", True),
        ("127.0.0.1", "10.0.0.5", False),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "127.0.0.1.evil.example", False),
        ("127.0.0.1", "localhost:port", False),
        ("127.0.0.1", "user@localhost", False),
        ("127.0.0.1", "localhost/path", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", None, False),
        ("0.0.0.0", "10.0.0.5:8501", True),
        ("0.0.0.0", "[fe80::1]", True),
        ("0.0.0.0", "evil.example", False),
        ("0.0.0.0", "loupe.example.org", True),
    ],
)
def test_which_names_are_known(address: str, host: str | None, known: bool) -> None:
    hosts = known_hosts(address, ["loupe.example.org"])
    assert is_known(host, hosts, address == "127.0.0.1") is known


@pytest.mark.parametrize("path", ["/", *OPEN, *CLOSED])
def test_no_route_answers_to_another_name(serve: Serve, path: str) -> None:
    client = serve(None)
    assert client.get(path, headers={"Host": "evil.example"}).status_code == 421
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(SOCKET, headers={"Host": "evil.example"}),
    ):
        pass


def test_every_response_has_the_headers(serve: Serve) -> None:
    client = serve()
    for answer in (client.get("/"), client.get("/media/x"), client.get("/", headers={"Host": "e"})):
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
    policy = dict(security_headers(["https://lab.example.org"]))[b"content-security-policy"]
    assert b"frame-ancestors https://lab.example.org" in policy
    assert b"unsafe-eval" not in policy


# --- signing out ----------------------------------------------------------------------------------


def test_signing_out_takes_a_post_from_a_page_of_ours(serve: Serve) -> None:
    client, token = serve(), generate_xsrf_token_string()
    client.cookies.update({**signed(), XSRF_COOKIE_NAME: token})
    assert client.get("/auth/logout").status_code == 405
    assert client.post("/auth/logout").status_code == 403
    other = generate_xsrf_token_string()
    assert client.post("/auth/logout", data={"token": other}).status_code == 403
    assert client.post("/auth/logout", data={"token": "x" * 5000}).status_code == 413
    assert client.post("/auth/logout", data={"token": token}).text.startswith("GET /auth/logout")


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture
def sender(serve: Serve) -> Callable[..., Response]:
    """Send a file as a browser does, with a valid cookie and token."""
    client, token = serve(), generate_xsrf_token_string()
    client.cookies.update({**signed(), XSRF_COOKIE_NAME: token})

    def send(url: str, body: bytes, **options: Any) -> Any:
        options.setdefault("headers", {"X-Xsrftoken": token})
        if options.pop("chunked", False):
            head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
            parts = [body[at : at + 2**16] for at in range(0, len(body), 2**16)]
            options["headers"]["Content-Type"] = "multipart/form-data; boundary=b"
            return client.put(url, content=iter([head, *parts, b"\r\n--b--\r\n"]), **options)
        if "content" in options:
            return client.put(url, **options)
        given = options.pop("files", {"file": ("é.png", body, "image/png")})
        return client.put(url, files=given, **options)

    return send


def place(files: UploadedFiles, session: str = "waits") -> tuple[str, str]:
    (given,) = files.get_upload_urls(session, ["a"])
    return given.file_id, given.upload_url


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_that_a_page_waits_for_lies_on_disk(
    files: UploadedFiles, sender: Any, chunked: bool
) -> None:
    id_, url = place(files)
    content = bytes(range(256)) * 2000
    assert sender(url, content, chunked=chunked).status_code == 204
    (record,) = files.get_files("waits", [id_])
    assert len(record.data) == len(content)
    assert bytes(record.data) == b"", "it is in memory"
    assert files.path_of("waits", id_).read_bytes() == content
    assert record.name == ("a" if chunked else "é.png")
    assert files.get_files("other", [id_]) == []
    assert sender(url, content).status_code == 409
    files.remove_session_files("waits")
    assert files.kept_bytes() == 0


def test_what_no_page_waits_for_is_refused(files: UploadedFiles, sender: Any) -> None:
    assert files.get_upload_urls("elsewhere", ["a"]) == []
    id_, url = place(files)
    token = {"X-Xsrftoken": "wrong"}
    refused = {
        "a session without an uploader": sender("/_stcore/upload_file/elsewhere/x", b"x"),
        "an address that was not given": sender("/_stcore/upload_file/waits/x", b"x"),
        "an address of another session": sender(f"/_stcore/upload_file/other/{id_}", b"x"),
        "a path": sender("/_stcore/upload_file/waits/%2e%2e%2fx", b"x"),
        "without a token": sender(url, b"x", headers={}),
        "with a wrong token": sender(url, b"x", headers=token),
        "too large": sender(url, bytes(2 * MIB)),
        "too large, in chunks": sender(url, bytes(2 * MIB), chunked=True),
        "two files": sender(url, b"", files={"a": ("a", b"1"), "b": ("b", b"2")}),
        "no file": sender(url, b"", content=b"x"),
    }
    answers = {name: answer.status_code for name, answer in refused.items()}
    assert all(400 <= status < 500 for status in answers.values()), answers
    assert files.kept_bytes() == 0
    assert files.get_files("waits", [id_]) == []
    assert sender(url, b"x").status_code == 204, "a refused file may be sent again"


def test_files_have_a_total_for_a_session_and_for_the_server(
    files: UploadedFiles, sender: Any
) -> None:
    def send(session: str) -> int:
        return int(sender(place(files, session)[1], bytes(MIB - 100)).status_code)

    assert [send("waits") for _ in range(3)] == [204, 204, 413]
    assert [send("other") for _ in range(2)] == [204, 507]
    files.remove_session_files("waits")
    assert send("other") == 204
    assert len(files.get_upload_urls("waits", ["a"] * 1000)) == 100


def test_folders_of_killed_servers_are_removed(files: UploadedFiles, tmp_path: Path) -> None:
    left = tmp_path / "dataloupe-uploads-left"
    left.mkdir()
    (left / "alive").touch()
    (left / "file").write_bytes(b"x")
    UploadedFiles("/_stcore/upload_file", lambda _: 0, 1, 1).close()
    assert not left.exists()
    assert files.kept_bytes() == 0
    assert (next(tmp_path.glob("dataloupe-uploads-*")) / "alive").exists()
