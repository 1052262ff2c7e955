"""A score matrix made elsewhere, turned the study's way: `[n_test, n_train]`, a block at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.attribution.scores.blocks import WORKING_BYTES
from engine.exchange.importing.matrix import Matrix
from engine.store.errors import ImportingError

Rows = Literal["test", "train"]
"""What a row of the matrix in the file stands for: a test or a training example."""


@dataclass(frozen=True)
class Source:
    """What a reader found.

    Attributes:
        tool: What made it, as people call it; None for files of one's own.
        files: What the scores are read from; their digests are the scores' identity.
        matrix: The scores.
        rows: What the tool's format says a row stands for; None where it says nothing.
        settings: What the tool says of how the scores were made, in its own words.
    """

    tool: str | None
    files: Sequence[Path]
    matrix: Matrix
    rows: Rows | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file to name in a message."""
        return self.files[0]


def read_settings(path: Path) -> dict[str, Any]:
    """A small JSON object that a tool left beside its scores; empty where there is none.

    Raises:
        ImportingError: It is no JSON object.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ImportingError(f"{path} cannot be read as JSON.") from error
    if not isinstance(content, dict):
        raise ImportingError(f"{path} holds no JSON object.")
    return content


@dataclass(frozen=True)
class Blocks:
    """Scores `[n_test, n_train]`, read in the order in which they lie in the file.

    Attributes:
        rows: What a row of the file stands for.
        note: What a person should know of how the axes were told apart; empty if nothing.
    """

    source: Source
    n_test: int
    n_train: int
    rows: Rows
    note: str

    def __iter__(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        return self.read()

    def read(self, memory_bytes: int = WORKING_BYTES) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yield (test rows, training rows, their scores), float32, each score once.

        Raises:
            ImportingError: A score is NaN or infinite, or the file is damaged.
        """
        matrix = self.source.matrix
        by_test = (self.rows == "test") == (matrix.major == 0)
        length, width = (self.n_test, self.n_train) if by_test else (self.n_train, self.n_test)
        # A band is there twice, as it was read (8 bytes at most) and as float32.
        size = max(1, memory_bytes // (12 * width))
        for number, band in enumerate(matrix.bands(size)):
            mine = slice(number * size, min((number + 1) * size, length))
            if by_test:
                tests, trains, block = mine, slice(0, width), band
            else:
                tests, trains, block = slice(0, width), mine, band.T
            self._check_finite(block, tests.start, trains.start)
            yield tests, trains, block

    def _check_finite(self, block: np.ndarray, test: int, train: int) -> None:
        bad = ~np.isfinite(block)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ImportingError(
                f"{self.source.path}: the score of training row {train + column} for test row "
                f"{test + row} is {block[row, column]}; all must be finite float32 numbers."
            )


def oriented(source: Source, n_test: int, n_train: int, rows: Rows | None = None) -> Blocks:
    """Find out which axis of the file is which, and refuse what does not fit the study.

    Args:
        source: What a reader found.
        n_test, n_train: Of the study.
        rows: What a row stands for, as the user says; it overrules what the format says.

    Raises:
        ImportingError: The shape fits the study in no way, only against what was said of the rows,
            or in both ways with nothing said.
    """
    shape = source.matrix.shape
    study = f"the study has {n_test:,} test and {n_train:,} training examples"
    if len(shape) != 2:
        raise ImportingError(
            f"{source.path} holds an array with {len(shape)} axes {list(shape)}; scores have two, "
            f"and {study}."
        )
    fits: list[Rows] = []
    if shape == (n_test, n_train):
        fits.append("test")
    if shape == (n_train, n_test):
        fits.append("train")
    said = rows or source.rows
    if not fits:
        raise ImportingError(f"{source.path}: {_axes(shape, n_test, n_train)}; {study}.")
    if said is None:
        if len(fits) == 2:
            raise ImportingError(
                f"{source.path} is square ({shape[0]:,} × {shape[1]:,}), so its shape does not "
                "tell which axis is which. Add --rows test if a row holds the scores of one test "
                "example, or --rows train if of one training example."
            )
        said = fits[0]
    elif said not in fits:
        who = "--rows says" if rows else f"{source.tool} writes"
        raise ImportingError(
            f"{source.path}: {_axes(shape, n_test, n_train)}, but {who} {said} examples as rows. "
            f"If the file was transposed, add --rows {fits[0]}; else test and training data "
            "may be exchanged."
        )
    note = ""
    if said == "train":
        note = f"The file is [{n_train:,} training, {n_test:,} test] examples; it is transposed."
    if len(fits) == 2 and rows is None:
        note = f"The matrix is square; its axes are taken as {source.tool} writes them. " + note
    return Blocks(source, n_test, n_train, said, note.strip())


def _axes(shape: tuple[int, ...], n_test: int, n_train: int) -> str:
    """Which axis has which length, and what that is in the study."""
    meanings = []
    for axis, length in zip(("rows", "columns"), shape, strict=True):
        names = [name for name, n in (("test", n_test), ("training", n_train)) if n == length]
        what = f"as many as {' and '.join(names)} examples" if names else "which fits neither side"
        meanings.append(f"{length:,} {axis} ({what})")
    return f"it has {' and '.join(meanings)}"
