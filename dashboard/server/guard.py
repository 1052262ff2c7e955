"""In front of every route: the name of the server, sign-in, uploads, signing out, and headers.

With a login, a request without a valid cookie gets the page that offers to sign in, and nothing
else: its scripts and styles, the route of the provider's answer, and a WebSocket that takes small
messages only. Bodies of other requests are not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.auth_util import get_cookie_with_chunks
from streamlit.web.server.starlette.starlette_app_utils import (
    decode_signed_value,
    validate_xsrf_token,
)
from streamlit.web.server.starlette.starlette_server_config import (
    USER_COOKIE_NAME,
    XSRF_COOKIE_NAME,
)

from dashboard.login import Login
from dashboard.server.hosts import is_known
from dashboard.server.upload_route import take_file
from dashboard.server.uploaded_files import UploadedFiles

SIGN_OUT = "/auth/logout"
OPEN = re.compile(
    r"(/[^/]+)*/(_stcore/(health|host-config)|auth/login|oauth2callback)"
    r"|/dataloupe/((server|fonts)/[^/]+|style\.css)|/static/.+"
)
"""Routes that need no sign-in: they tell nothing of the study, and keep nothing."""
CLOSED = re.compile(r".*/(_stcore|media|component|app|dataloupe|auth|api)(/.*)?", re.DOTALL)
"""Anywhere in a path, since a server may be below another. Other paths are the page itself, which
is the same for everyone, or its scripts and styles."""
API = re.compile(r"/api(/.*)?", re.DOTALL)
MOST_MESSAGE = 32 * 2**20
"""Bytes of one message of a signed-in browser: a lasso around 50,000 points takes some."""
MOST_MESSAGE_UNSIGNED = 2**16
MOST_UNSIGNED = 200
"""WebSockets at a time without sign-in."""
MOST_FORM = 2**12
TOO_BIG = 1009
REFUSED = 1008


@dataclass
class Guard:
    """The middleware, and what it has to know.

    Attributes:
        app: The routes behind it.
        login: Who may enter; None: everyone who can reach the server.
        hosts: Names of this server.
        local: Whether the server listens on this machine only.
        headers: Headers of every response.
        files: Gives the manager of uploaded files.
    """

    app: ASGIApp
    login: Login | None
    hosts: frozenset[str]
    local: bool
    headers: Sequence[tuple[bytes, bytes]]
    files: Callable[[], UploadedFiles]
    _unsigned: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse, or pass on."""
        if scope["type"] == "http":
            await self._http(scope, receive, self._with_headers(send))
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer: ASGIApp = self.app
        path, method = scope["path"], scope["method"]
        if not is_known(request.headers.get("host"), self.hosts, self.local):
            words = "This server does not answer to that name (docs/serving.md)."
            answer = _refusal(421, words, path)
        elif path.rstrip("/") == SIGN_OUT:
            answer = await self._sign_out(request)
        elif not self._may_enter(request) and not _is_open(path, method):
            answer = _refusal(401, "Sign in first.", path)
        elif method == "PUT" and path.startswith("/_stcore/upload_file/"):
            answer = await take_file(request, self.files())
        await answer(scope, receive, send)

    async def _sign_out(self, request: Request) -> ASGIApp:
        """Pass on a POST from a page of ours, so that no link of another site signs anyone out."""
        if request.method != "POST":
            return Response("Sign out on a page.", 405, {"Allow": "POST"})
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_FORM:
                return _refusal(413, "This form is too large.")
        token = body.decode("latin-1").removeprefix("token=").replace("%7C", "|")
        if not validate_xsrf_token(token, request.cookies.get(XSRF_COOKIE_NAME)):
            return _refusal(403, "This request does not come from a page of this server.")
        app = self.app

        async def as_get(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "method": "GET"}, _nothing, send)

        return as_get

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        may_enter = self._may_enter(connection)
        known = is_known(connection.headers.get("host"), self.hosts, self.local)
        if not known or (not may_enter and self._unsigned >= MOST_UNSIGNED):
            await send({"type": "websocket.close", "code": REFUSED})
            return
        most = MOST_MESSAGE if may_enter else MOST_MESSAGE_UNSIGNED

        async def limited() -> Message:
            message = await receive()
            content = message.get("bytes") or message.get("text") or b""
            if message["type"] == "websocket.receive" and len(content) > most:
                await send({"type": "websocket.close", "code": TOO_BIG})
                return {"type": "websocket.disconnect", "code": TOO_BIG}
            return message

        self._unsigned += not may_enter
        try:
            await self.app(scope, limited, send)
        finally:
            self._unsigned -= not may_enter

    def _may_enter(self, connection: HTTPConnection) -> bool:
        if self.login is None:
            return True
        user = user_of(connection, self.login)
        return bool(user) and self.login.allows(user)

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = {name for name, _ in self.headers}
                others = [one for one in message["headers"] if one[0].lower() not in ours]
                message = {**message, "headers": [*others, *self.headers]}
            await send(message)

        return sending


async def _nothing() -> Message:
    """The body of a request that was read already."""
    return {"type": "http.request", "body": b"", "more_body": False}


def user_of(connection: HTTPConnection, login: Login) -> dict[str, Any]:
    """What the signed cookie says of the user, checked as Streamlit does; empty if invalid."""

    def cookie(name: str) -> bytes | None:
        value = connection.cookies.get(name)
        if value is None:
            return None
        return decode_signed_value(login.secret, name, value.encode("latin-1"))

    try:
        found = json.loads(get_cookie_with_chunks(cookie, USER_COOKIE_NAME) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("is_logged_in") is True else {}


def _is_open(path: str, method: str) -> bool:
    if method not in ("GET", "HEAD"):
        return False
    return OPEN.fullmatch(path) is not None or CLOSED.fullmatch(path) is None


def _refusal(status: int, words: str, path: str = "") -> Response:
    """A refusal in one line; programs get it as they get every error of the API."""
    headers = {"Connection": "close", "Cache-Control": "no-store"}
    if API.fullmatch(path):
        return JSONResponse({"error": words}, status, headers)
    return PlainTextResponse(words, status, headers)
