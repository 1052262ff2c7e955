"""Turns at a few workers that many people share: nobody's requests delay another's for long.

    turns = FairTurns(slots=2, waiting_seconds=60)
    with turns.turn("ada@example.org") as slot:
        workers[slot].call(...)

A person has one turn at a time. When a slot is free, whoever used the workers least in the last
minutes goes first, however many requests others have waiting.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from engine.store.errors import DataloupeError

HALF_LIFE_SECONDS = 60.0
"""After this time, half of what somebody used is forgotten."""
MOST_WAITING_EACH = 4
MOST_WAITING = 200
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, eq=False)
class _Ticket:
    """A request that waits. Two of the same person are different tickets."""

    who: str


class FairTurns:
    """Slots, who has one, and who waits for one. Used from many threads."""

    def __init__(self, slots: int, waiting_seconds: float) -> None:
        """Set the number of slots, and the longest time that a request waits for one."""
        self._waiting_seconds = waiting_seconds
        self._free = list(range(slots))[::-1]
        self._running: set[str] = set()
        self._waiting: list[_Ticket] = []
        self._used: dict[str, tuple[float, float]] = {}
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self, who: str) -> Iterator[int]:
        """Wait for a turn; give the number of the slot.

        Raises:
            DataloupeError: Too many requests wait, or this one waited too long.
        """
        slot = self._take(_Ticket(who))
        start = time.monotonic()
        try:
            yield slot
        finally:
            with self._changed:
                now = time.monotonic()
                self._remember(who, self._recent(who, now) + now - start, now)
                self._running.discard(who)
                self._free.append(slot)
                self._changed.notify_all()

    def _take(self, ticket: _Ticket) -> int:
        who = ticket.who
        with self._changed:
            if sum(one.who == who for one in self._waiting) >= MOST_WAITING_EACH:
                raise DataloupeError("Your earlier requests are still running. Wait for them.")
            if len(self._waiting) >= MOST_WAITING:
                raise DataloupeError("Too many requests are waiting. Try again in a moment.")
            self._waiting.append(ticket)
            try:
                if not self._changed.wait_for(lambda: self._is_next(ticket), self._waiting_seconds):
                    raise DataloupeError("Other requests are running. Try again in a moment.")
                self._running.add(who)
                return self._free.pop()
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _is_next(self, ticket: _Ticket) -> bool:
        if not self._free:
            return False
        now = time.monotonic()
        ready = [one for one in self._waiting if one.who not in self._running]
        # `min` takes the first of equals: the one that has waited longest.
        return bool(ready) and min(ready, key=lambda one: self._recent(one.who, now)) is ticket

    def _recent(self, who: str, now: float) -> float:
        seconds, at = self._used.get(who, (0.0, now))
        return float(seconds * 0.5 ** ((now - at) / HALF_LIFE_SECONDS))

    def _remember(self, who: str, seconds: float, now: float) -> None:
        self._used.pop(who, None)
        self._used[who] = seconds, now
        if len(self._used) > _MOST_REMEMBERED:
            del self._used[next(iter(self._used))]
