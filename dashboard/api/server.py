"""The routes below `/api`: GET only, behind the guard of every other route.

An answer is made in a thread. It may be kept by the browser that asked, which asks again whether it
is still the same (ETag); streamed answers are kept by nobody. Errors are `{"error": "one line"}`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route

from dashboard.api.answer import JSON, NDJSON, Answer
from dashboard.api.openapi import openapi
from dashboard.api.page import page
from dashboard.api.query import EVERYTHING, status_of
from dashboard.api.reading import answer_of, picture_of
from dashboard.api.table import VIEWS, View
from dashboard.api.threads import Threads
from engine.store.errors import DataloupeError

KEPT = {"Cache-Control": "private, no-cache", "Vary": "Accept, Cookie"}
NOT_KEPT = {"Cache-Control": "no-store"}
READING = ("GET", "HEAD")
METHODS = (*READING, "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
UNEXPECTED = (
    "An unexpected error occurred; details are in the terminal that runs Dataloupe. "
    "`dataloupe doctor STUDY` tells whether the study's files are intact."
)
_LOG = logging.getLogger(__name__)
Answering = Callable[[Request], Awaitable[Response]]


def api_routes(root: Path) -> list[BaseRoute]:
    """The routes for the study in `root`."""
    threads = Threads()

    def view(one: View) -> Answering:
        async def answering(request: Request) -> Response:
            given = parameters_of(request)
            media_type = _media_type(one, given, request)
            asked = {name: value for name, value in given.items() if name != "format"}
            if media_type == NDJSON and one.long and "page" not in asked:
                asked["page"] = EVERYTHING
            found = await threads.run(lambda: _made(answer_of(root, one, asked), media_type))
            if isinstance(found, bytes):
                return _kept(found, media_type, request, NOT_KEPT if one.live else KEPT)
            start, rest = found
            return StreamingResponse(
                _joined(start, threads.each(rest)), media_type=media_type, headers=NOT_KEPT
            )

        return answering

    async def picture(request: Request) -> Response:
        given = parameters_of(request)
        found = await threads.run(lambda: picture_of(root, given))
        return _kept(found.content, found.media_type, request, KEPT)

    async def document(request: Request) -> Response:
        content = json.dumps(openapi(), ensure_ascii=False).encode()
        return _kept(content, JSON, request, KEPT)

    async def human_page(request: Request) -> Response:
        return _kept(page().encode(), "text/html; charset=utf-8", request, KEPT)

    async def to_page(request: Request) -> Response:
        return RedirectResponse("../api")  # its links are relative to that address

    async def unknown(request: Request) -> Response:
        names = ", ".join(one.name for one in VIEWS)
        return _error(404, f"There is no such view. /api/openapi.json describes all: {names}.")

    def at(path: str, answering: Answering) -> Route:
        return Route(path, _reading_only(_with_errors(answering)), methods=METHODS)

    routes = [
        at("/", to_page),
        at("/openapi.json", document),
        at("/picture", picture),
        *(at(f"/{one.name}", view(one)) for one in VIEWS),
        at("/{path:path}", unknown),
    ]
    return [at("/api", human_page), Mount("/api", routes=routes)]


def parameters_of(request: Request) -> dict[str, str]:
    """The parameters of an address.

    Raises:
        DataloupeError: One is given twice, and which one is meant is not known.
    """
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in found:
            raise DataloupeError(f"The parameter “{name[:60]}” is given twice.")
        found[name] = value
    return found


def _media_type(view: View, given: Mapping[str, str], request: Request) -> str:
    """JSON, or NDJSON if that is asked for. Raises DataloupeError for anything else."""
    asked = given.get("format")
    if asked not in (None, "json", "ndjson"):
        raise DataloupeError(f"format must be json or ndjson, not “{asked[:60]}”.")
    if asked == "ndjson" and not view.long:
        raise DataloupeError(f"The answer of {view.name} is one object: it has no lines.")
    accepted = NDJSON in request.headers.get("accept", "") and bool(view.long)
    return NDJSON if asked == "ndjson" or (asked is None and accepted) else JSON


def _made(found: Answer, media_type: str) -> bytes | tuple[bytes, Iterator[bytes]]:
    """A short answer; the first part of a long one, and what makes the others."""
    parts = found.stream(media_type)
    if found.rows is None or not found.rows.whole:
        return b"".join(parts)
    return next(parts), parts


async def _joined(start: bytes, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for part in parts:
        yield part


def _kept(
    content: bytes, media_type: str, request: Request, headers: Mapping[str, str]
) -> Response:
    """An answer with its ETag, or that it is still the same."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    known = [one.strip().removeprefix("W/") for one in _header(request, "if-none-match").split(",")]
    if tag in known:
        return Response(status_code=304, headers={**headers, "ETag": tag})
    return Response(content, media_type=media_type, headers={**headers, "ETag": tag})


def _header(request: Request, name: str) -> str:
    return request.headers.get(name, "")


def _error(status: int, words: str) -> Response:
    content = json.dumps({"error": " ".join(words.split())}, ensure_ascii=False).encode()
    return Response(content, status, headers=NOT_KEPT, media_type=JSON)


def _with_errors(answering: Answering) -> Answering:
    """The same, with every error as one line of JSON; what is not expected goes to the terminal."""

    async def guarded(request: Request) -> Response:
        try:
            return await answering(request)
        except DataloupeError as error:
            return _error(status_of(error), str(error))
        except Exception:
            _LOG.exception("The answer to %s could not be made", request.url.path)
            return _error(500, UNEXPECTED)

    return guarded


def _reading_only(answering: Answering) -> Answering:
    async def checked(request: Request) -> Response:
        if request.method in READING:
            return await answering(request)
        refusal = _error(405, "The API only reads: use GET.")
        refusal.headers["Allow"] = ", ".join(READING)
        return refusal

    return checked
