"""Progress in the terminal: of a build, and of a job of the queue."""

from __future__ import annotations

import contextlib
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

from engine.store.records import Progress
from engine.study.reader import StudyReader

TITLES = {
    "data": "Read and check the data",
    "import": "Import",
    "checkpoints": "Train checkpoints",
    "predictions": "Predict",
    "neighbours": "Find similar training data",
    "trak": "Attribute predictions to training data",
    "search": "Rank and index",
    "live": "Prepare live queries",
    "bank": "Train on random subsets",
    "tuning": "Choose settings on validation runs",
    "datamodels": "Fit datamodels",
    "quality": "Judge by test runs",
    "map": "Draw maps",
}


class BuildProgress:
    """A line for every stage of a build, with counts and times; `update` moves them.

    Args:
        console: Where it is shown; None: standard output.
    """

    def __init__(self, study: StudyReader, console: Console | None = None) -> None:
        self._several = len(study.spec.algorithms) > 1
        self._rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._lines: dict[tuple[str, str | None], TaskID] = {}

    def __enter__(self) -> BuildProgress:
        self._rich.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._rich.stop()

    def update(self, progress: Progress) -> None:
        """Show how far a stage is."""
        key = (progress.stage, progress.algorithm)
        if key not in self._lines:
            suffix = f" · {progress.algorithm}" if self._several and progress.algorithm else ""
            self._lines[key] = self._rich.add_task(TITLES[progress.stage] + suffix, total=None)
        self._rich.update(self._lines[key], completed=progress.done, total=progress.total)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._rich.console.print(text, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def job_progress(
    title: str, console: Console | None = None
) -> Iterator[Callable[[int, int, str], None]]:
    """A line for one job, with the time that is left; called with (done, total, what).

    Args:
        console: Where it is shown; None: standard output.
    """
    words = TextColumn("{task.description} · {task.fields[what]}", markup=False)
    columns = words, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with RichProgress(*columns, console=console) as shown:
        line = shown.add_task(title, total=None, what="waiting")
        yield lambda done, total, what: shown.update(
            line, completed=done, total=total or None, what=what or "waiting"
        )
