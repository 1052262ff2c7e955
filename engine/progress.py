"""The build's progress in the terminal."""

from __future__ import annotations

from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress

from engine.answers import Progress
from engine.study import Study

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
}


class BuildProgress:
    """A line for every stage of a build, with counts and times; `update` moves them."""

    def __init__(self, study: Study) -> None:
        self._several = len(study.spec.algorithms) > 1
        self._rich = RichProgress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
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
