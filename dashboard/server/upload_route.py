"""The route that takes files from uploaders: `PUT /_stcore/upload_file/SESSION/FILE`.

It replaces Streamlit's, which reads a whole file into memory and takes it for any session.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from streamlit.web.server.starlette.starlette_app_utils import validate_xsrf_token
from streamlit.web.server.starlette.starlette_server_config import XSRF_COOKIE_NAME

from dashboard.server.uploaded_files import Arriving, Refused, UploadedFiles

PATH = re.compile(r"/_stcore/upload_file/([^/]+)/([^/]+)")
MOST_FRAMING = 2**16
"""Bytes of a request's body besides the file: boundaries and headers of its parts."""
_LONGEST_NAME = 255


async def take_file(request: Request, files: UploadedFiles) -> Response:
    """Answer a request that sends a file."""
    found = PATH.fullmatch(request.url.path)
    cookie = request.cookies.get(XSRF_COOKIE_NAME)
    try:
        if found is None or not validate_xsrf_token(request.headers.get("X-Xsrftoken"), cookie):
            raise Refused(403, "This request does not come from a page of this server.")
        content_type, options = parse_options_header(request.headers.get("Content-Type", ""))
        boundary = options.get(b"boundary")
        if content_type != b"multipart/form-data" or not boundary:
            raise Refused(400, "A file in multipart/form-data is expected.")
        announced = request.headers.get("Content-Length", "0")
        if not announced.isdigit() or len(announced) > 15:
            raise Refused(400, "Content-Length is not a number.")
        size = max(0, int(announced) - MOST_FRAMING)
        with files.receiving(found[1], found[2], size) as arriving:
            await _receive(request.stream(), boundary, arriving)
    except Refused as error:
        # The server throws the rest of the body away: the page is to get this answer.
        return PlainTextResponse(str(error), status_code=error.status)
    except (MultipartParseError, ClientDisconnect):
        return PlainTextResponse("The file did not arrive whole.", status_code=400)
    return Response(status_code=204)


async def _receive(body: AsyncIterator[bytes], boundary: bytes, arriving: Arriving) -> None:
    """Write the only file of a request to disk as it arrives. Raises Refused or a parse error."""
    part = _Part(arriving)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": part.begin,
            "on_header_field": part.header_field,
            "on_header_value": part.header_value,
            "on_header_end": part.header_end,
            "on_part_data": part.data,
            "on_end": part.end,
        },
    )
    total = 0
    async for chunk in body:
        total += len(chunk)
        parser.write(chunk)
        if total > arriving.size + MOST_FRAMING:
            raise Refused(400, "The request has more than a file.")
    parser.finalize()
    if not part.ended:
        raise Refused(400, "The file did not arrive whole.")
    arriving.keep(part.name, part.type)


class _Part:
    """The part of the body that holds the file."""

    def __init__(self, arriving: Arriving) -> None:
        self.name, self.type = "", "application/octet-stream"
        self.ended = False
        self._arriving = arriving
        self._parts = 0
        self._field = self._value = b""

    def begin(self) -> None:
        self._parts += 1
        if self._parts > 1:
            raise Refused(400, "Exactly one file is expected.")

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        field, value = self._field.lower(), self._value
        self._field = self._value = b""
        if field == b"content-disposition":
            name = parse_options_header(value)[1].get(b"filename", b"")
            self.name = name.decode("utf-8", errors="replace")[-_LONGEST_NAME:]
        elif field == b"content-type":
            self.type = value.decode("latin-1")[:_LONGEST_NAME]

    def data(self, data: bytes, start: int, end: int) -> None:
        self._arriving.write(data[start:end])

    def end(self) -> None:
        self.ended = True
