"""The threads in which answers are made: few, so that programs cannot slow down the pages."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

import anyio
import anyio.to_thread

THREADS = 4
T = TypeVar("T")
_END = object()
_here = threading.local()


def _quiet(record: logging.LogRecord) -> bool:
    """Streamlit warns where a cache would show a spinner and there is no page: here never is."""
    return not getattr(_here, "answers", False)


logging.getLogger("streamlit.runtime.scriptrunner_utils.script_run_context").addFilter(_quiet)


class Threads:
    """At most `THREADS` at a time; others wait, off the event loop."""

    def __init__(self) -> None:
        """Make the limit; needs no event loop yet."""
        self._limit: anyio.CapacityLimiter | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, computed in a thread."""
        if self._limit is None:
            self._limit = anyio.CapacityLimiter(THREADS)
        return await anyio.to_thread.run_sync(_quietly, work, limiter=self._limit)

    async def each(self, parts: Iterator[T]) -> AsyncIterator[T]:
        """What an iterator gives, one after the other, each computed in a thread."""
        while True:
            part = await self.run(lambda: next(parts, _END))
            if part is _END:
                return
            yield part  # type: ignore[misc]


def _quietly(work: Callable[[], T]) -> T:
    _here.answers = True
    try:
        return work()
    finally:
        _here.answers = False
