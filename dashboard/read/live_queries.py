"""The workers that run live queries, shared by all sessions of the server.

Two kinds of worker, because what strangers send may be slow to read: *readers* decode it to the
small arrays that the models take, under limits of bytes, pixels, memory and seconds; one
*explainer* holds the models and takes equally long for every example. People take turns at both
(`engine.running.fair_turns`), so a slow picture delays only its sender. The pages' own process
never imports torch and never decodes a picture.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from engine.applications.live import (
    Example,
    Query,
    QueryResult,
    explain,
    read_example,
    warm_up_reading,
)
from engine.applications.live import warm_up as load
from engine.data.picture_budget import MOST_BYTES
from engine.running.fair_turns import FairTurns
from engine.running.kept_worker import KeptWorker
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader

Job = TypeVar("Job")
Result = TypeVar("Result")

MEGABYTES = MOST_BYTES // 2**20
"""The largest accepted input. The server's own limit may be higher, as models are larger."""
MEMORY_BYTES = 3 * 2**30
"""Memory limit of a worker; mapped files do not count. The largest picture needs 500 MB."""
THREADS = 1
"""Two small passes gain nothing from more threads, and lose much if other processes compute."""
READERS = 2
"""Readers; the second starts only if the first is busy."""
IDLE_SECONDS = 900.0
LOADING_SECONDS = 180.0
READING_SECONDS = 5.0
"""The budget of a picture (`engine.data.picture_budget`) is about a second on an idle machine."""
ANSWER_SECONDS = 20.0
WAITING_SECONDS = 60.0


def _new_worker() -> KeptWorker:
    return KeptWorker(THREADS, MEMORY_BYTES, IDLE_SECONDS, WAITING_SECONDS)


@dataclass
class Workers:
    """The workers, and the turns that people take at them."""

    explainer: KeptWorker = field(default_factory=_new_worker)
    readers: list[KeptWorker] = field(
        default_factory=lambda: [_new_worker() for _ in range(READERS)]
    )
    explaining: FairTurns = field(default_factory=lambda: FairTurns(1, WAITING_SECONDS))
    reading: FairTurns = field(default_factory=lambda: FairTurns(READERS, WAITING_SECONDS))

    def ask(self, query: Query, who: str) -> QueryResult:
        """Read and explain an example, in the turn of `who`.

        Raises:
            DataloupeError: The input cannot be used, a time or memory limit is exceeded, or the
                workers are busy.
        """
        with self.reading.turn(who) as slot:
            reader = self.readers[slot]
            if reader.pid is None:
                reader.call(warm_up_reading, query, LOADING_SECONDS)
            try:
                example: Example = reader.call(read_example, query, READING_SECONDS)
            finally:
                if reader.pid is None:  # this example ended it, so it waits for the next one
                    _begin(reader, warm_up_reading, query)
        with self.explaining.turn(who):
            self.explainer.call(load, query, LOADING_SECONDS)
            found: QueryResult = self.explainer.call(
                explain, query.read_as(example), ANSWER_SECONDS
            )
        return found

    def with_models(self, work: Callable[[Job], Result], job: Job, who: str) -> Result:
        """Run other work in the worker that holds the models, in the turn of `who`."""
        with self.explaining.turn(who):
            return self.explainer.call(work, job, LOADING_SECONDS)

    def warm_up(self, query: Query) -> None:
        """Start loading what queries need, without waiting for it."""
        for worker, work in ((self.explainer, load), (self.readers[0], warm_up_reading)):
            if worker.pid is None:
                threading.Thread(target=_begin, args=(worker, work, query), daemon=True).start()

    def end(self) -> None:
        """End all workers. The next query starts new ones."""
        for worker in (self.explainer, *self.readers):
            worker.end()


def _begin(worker: KeptWorker, work: Callable[[Query], None], query: Query) -> None:
    # Errors are reported on the first query.
    with contextlib.suppress(DataloupeError, RuntimeError):
        worker.call(work, query, LOADING_SECONDS)


def warm_up(study: StudyReader, algorithm: str) -> None:
    """Start loading what queries need, without waiting for it."""
    _workers().warm_up(Query(study.root, algorithm, {}))


def ask(query: Query, who: str) -> QueryResult:
    """Run a live query: the prediction for an example and the training data that explain it.

    Args:
        who: The person who asks, or their session. Everyone has one query running at a time.

    Raises:
        DataloupeError: The input cannot be used, a time or memory limit is exceeded, or the
            workers are busy.
    """
    return _reported(lambda: _workers().ask(query, who))


def in_explainer(work: Callable[[Job], Result], job: Job, who: str) -> Result:
    """Run work of an importable module in the worker that holds the models.

    Raises as `ask`.
    """
    return _reported(lambda: _workers().with_models(work, job, who))


def _reported(run: Callable[[], Result]) -> Result:
    try:
        return run()
    except RuntimeError as error:
        traceback.print_exception(error)
        raise DataloupeError(
            "An unexpected error occurred; see the terminal that runs Dataloupe."
        ) from error


@functools.cache
def _workers() -> Workers:
    return Workers()
