"""An answer: a view's object and, where it lists many examples, what makes them one by one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

JSON, NDJSON = "application/json", "application/x-ndjson"
CHUNK = 2**16
"""Bytes of a streamed answer that are sent at a time, about."""


@dataclass(frozen=True)
class Rows:
    """A long list of an answer.

    Attributes:
        field: The field of the answer that holds the list.
        entries: Its entries, made while they are sent.
        whole: Whether these are all, and not one page of them: then they are streamed.
    """

    field: str
    entries: Iterator[Any]
    whole: bool


@dataclass(frozen=True)
class Answer:
    """What a view gives.

    Attributes:
        content: An object of the view's type. Its long list is empty if there are `rows`.
    """

    content: Any
    rows: Rows | None = None

    def to_json(self) -> bytes:
        """The whole answer in memory."""
        return b"".join(self.stream(JSON))

    def stream(self, media_type: str) -> Iterator[bytes]:
        """The answer in parts, in one of two formats.

        JSON is one object. In NDJSON, the first line is the object without its long list, and every
        further line is an entry of the list.
        """
        adapter = _adapter(self.content)
        if self.rows is None:
            yield adapter.dump_json(self.content) + (b"\n" if media_type == NDJSON else b"")
            return
        start = adapter.dump_json(self.content, exclude={self.rows.field})
        if media_type == NDJSON:
            yield from _in_chunks(start + b"\n", (one + b"\n" for one in self._entries()), b"", b"")
            return
        name = f'"{self.rows.field}":['.encode()
        yield from _in_chunks(start[:-1] + b"," + name, self._entries(), b",", b"]}")

    def _entries(self) -> Iterator[bytes]:
        assert self.rows is not None
        for entry in self.rows.entries:
            yield _adapter(entry).dump_json(entry)


def _in_chunks(
    start: bytes, entries: Iterator[bytes], between: bytes, end: bytes
) -> Iterator[bytes]:
    buffer, first = bytearray(start), True
    for entry in entries:
        if not first:
            buffer += between
        buffer += entry
        first = False
        if len(buffer) >= CHUNK:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer) + end


@functools.cache
def adapter_of(kind: type) -> TypeAdapter[Any]:
    """What writes objects of a dataclass as JSON, and describes them."""
    return TypeAdapter(kind)


def _adapter(content: Any) -> TypeAdapter[Any]:
    kind: type = type(content)
    return adapter_of(kind)
