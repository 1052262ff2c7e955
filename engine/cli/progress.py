"""Progress of long work: bars in a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from engine.cli.printing import console, is_terminal
from engine.store.records import Progress
from engine.study.reader import StudyReader
from engine.study.stage_titles import TITLES

SECONDS_BETWEEN_LINES = 60.0
"""Seconds between two plain lines of the same work."""


class BuildProgress:
    """The progress of a build, stage by stage. Call `update` to advance it.

    Args:
        shown: Console to print to; None: standard output.
    """

    def __init__(self, study: StudyReader, shown: Console | None = None) -> None:
        self._several = len(study.spec.algorithms) > 1
        self._console = shown or console()
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._lines: dict[str, _PlainLines] = {}
        if is_terminal(self._console):
            self._bars = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._console,
            )

    def __enter__(self) -> BuildProgress:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, progress: Progress) -> None:
        """Show the progress of a stage, and what it has to say."""
        if progress.note:
            self.say(progress.note)
        suffix = f" · {progress.algorithm}" if self._several and progress.algorithm else ""
        title = TITLES[progress.stage] + suffix
        if self._bars is not None:
            if title not in self._tasks:
                self._tasks[title] = self._bars.add_task(title, total=None)
            self._bars.update(self._tasks[title], completed=progress.done, total=progress.total)
        elif progress.complete:
            self._lines.setdefault(title, _PlainLines(self._console, title)).end()
        else:
            if title not in self._lines or self._lines[title].ended:
                self._lines[title] = _PlainLines(self._console, title)
            self._lines[title].update(progress.done, progress.total)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, soft_wrap=True)


@contextlib.contextmanager
def job_progress(
    title: str, shown: Console | None = None
) -> Iterator[Callable[[int, int, str], None]]:
    """Show the progress of one job with the remaining time.

    Args:
        shown: Console to print to; None: standard output.

    Yields:
        A function to call with (done, total, what).
    """
    shown = shown or console()
    if not is_terminal(shown):
        lines = _PlainLines(shown, title)
        lines.update(0, 0)
        yield lines.update
        lines.end()
        return
    text = TextColumn("{task.description} · {task.fields[what]}", markup=False)
    columns = text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with RichProgress(*columns, console=shown) as bars:
        task = bars.add_task(title, total=None, what="waiting")
        yield lambda done, total, what: bars.update(
            task, completed=done, total=total or None, what=what or "waiting"
        )


class _PlainLines:
    """The progress of one task as plain lines: at the start, once a minute, and at the end."""

    def __init__(self, shown: Console, title: str) -> None:
        self._console = shown
        self._title = title
        self._started = time.monotonic()
        self._printed: float | None = None
        self.ended = False

    def update(self, done: int, total: int, what: str = "") -> None:
        now = time.monotonic()
        if self._printed is None:
            self._print("started" + (f", {done:,} of {total:,} done before." if done else "."))
        elif now - self._printed >= SECONDS_BETWEEN_LINES:
            count = f"{done:,} of {total:,}" if total else ""
            state = ", ".join(part for part in (what, count) if part) or "working"
            self._print(f"{state} after {_duration(now - self._started)}.")

    def end(self) -> None:
        """Print once that the work is done. Without a start line, the duration is omitted."""
        if not self.ended:
            took = "" if self._printed is None else f" after {_duration(self._age())}"
            self._print(f"finished{took}.")
        self.ended = True

    def _age(self) -> float:
        return time.monotonic() - self._started

    def _print(self, text: str) -> None:
        self._printed = time.monotonic()
        self._console.print(f"{self._title}: {text}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
