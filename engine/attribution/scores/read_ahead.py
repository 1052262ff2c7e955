"""Read the next block of rows while this one is worked on, and time what a pass waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
Block = TypeVar("Block")


@dataclass
class Seconds:
    """What the time of a pass over the scores went to.

    Attributes:
        waiting: For blocks of training features that were not read yet.
        multiplying: Features with factors, until a tile of scores is complete.
        selecting: The strongest scores, and the sums.
    """

    waiting: float = 0.0
    multiplying: float = 0.0
    selecting: float = 0.0

    def add(self, other: Seconds) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def bound(self) -> str:
        """What limits the speed: `disk` or `processor`."""
        return "disk" if self.waiting > self.multiplying + self.selecting else "processor"


def read_ahead(
    read: Callable[[Item, int], Block], items: Iterable[Item], seconds: Seconds
) -> Iterator[Block]:
    """Yield `read(item, slot)` of each item; a thread reads the next one meanwhile.

    Args:
        read: Gets an item and 0 or 1 in turns: the buffer to fill. What it returned for an item
            is used until the next item is requested.
        seconds: Gets the time that this waited.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[Block] | None = None
        for number, item in enumerate(items):
            following = pool.submit(read, item, number % 2)
            if waiting is not None:
                yield _result(waiting, seconds)
            waiting = following
        if waiting is not None:
            yield _result(waiting, seconds)


def _result(waiting: Future[Block], seconds: Seconds) -> Block:
    start = time.perf_counter()
    block = waiting.result()
    seconds.waiting += time.perf_counter() - start
    return block
