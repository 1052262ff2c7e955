"""Orient the score matrix of another tool as `[n_test, n_train]`, and read it block by block."""

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
from engine.store.text import counted

Rows = Literal["test", "train"]
"""Whether a row of the matrix in the file is a test or a training example."""


@dataclass(frozen=True)
class Source:
    """Scores that a reader found.

    Attributes:
        tool: Name of the tool that made them; None for the user's own files.
        files: The files that hold the scores; their digests identify the scores.
        matrix: The scores.
        rows: What a row is in the tool's format; None if the format does not specify it.
        settings: The tool's own record of how it computed the scores.
    """

    tool: str | None
    files: Sequence[Path]
    matrix: Matrix
    rows: Rows | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file to name in messages."""
        return self.files[0]


def read_settings(path: Path) -> dict[str, Any]:
    """Read the JSON object that a tool wrote next to its scores; empty if there is no such file.

    Raises:
        ImportingError: The file is not a JSON object.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ImportingError(f"{path} cannot be read as JSON.") from error
    if not isinstance(content, dict):
        raise ImportingError(f"{path} does not hold a JSON object.")
    return content


@dataclass(frozen=True)
class Blocks:
    """Scores `[n_test, n_train]`, read in the order of the file.

    Attributes:
        rows: What a row of the file is.
        note: Note for the user on how the axes were identified; may be empty.
    """

    source: Source
    n_test: int
    n_train: int
    rows: Rows
    note: str

    def __iter__(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        return self.read()

    def read(self, memory_bytes: int = WORKING_BYTES) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yield (test rows, training rows, scores `[test rows, training rows]`), each score once.

        Args:
            memory_bytes: Memory that reading may use.

        Raises:
            ImportingError: A score is NaN or infinite, or the file is damaged.
        """
        matrix = self.source.matrix
        by_test = (self.rows == "test") == (matrix.major == 0)
        length, width = (self.n_test, self.n_train) if by_test else (self.n_train, self.n_test)
        # A band is in memory twice: as read (at most 8 bytes a number) and as float32.
        size = max(1, memory_bytes // (12 * width))
        for number, band in enumerate(matrix.bands(size)):
            rows = slice(number * size, min((number + 1) * size, length))
            if by_test:
                tests, trains, block = rows, slice(0, width), band
            else:
                tests, trains, block = slice(0, width), rows, band.T
            self._check_finite(block, tests.start, trains.start)
            yield tests, trains, block

    def _check_finite(self, block: np.ndarray, test: int, train: int) -> None:
        bad = ~np.isfinite(block)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise ImportingError(
                f"{self.source.path}: the score of training row {train + column} for test row "
                f"{test + row} is {block[row, column]}; all scores must be finite in float32."
            )


def oriented(source: Source, n_test: int, n_train: int, rows: Rows | None = None) -> Blocks:
    """Identify the axes of a matrix, and check that its shape matches the study.

    Args:
        source: Scores that a reader found.
        n_test, n_train: Numbers of test and training examples in the study.
        rows: What a row is, as stated by the user; overrides the tool's format.

    Raises:
        ImportingError: The shape does not match the study, contradicts `rows` or the tool's format,
            or is square and neither specifies the rows.
    """
    shape = source.matrix.shape
    study = f"the study has {n_test:,} test and {n_train:,} training examples"
    if len(shape) != 2:
        raise ImportingError(
            f"{source.path} holds an array with {counted(len(shape), 'axis', 'axes')} "
            f"{list(shape)}; scores have two, and {study}."
        )
    fits: list[Rows] = []
    if shape == (n_test, n_train):
        fits.append("test")
    if shape == (n_train, n_test):
        fits.append("train")
    found = rows or source.rows
    if not fits:
        raise ImportingError(f"{source.path}: {_axes(shape, n_test, n_train)}; {study}.")
    if found is None:
        if len(fits) == 2:
            raise ImportingError(
                f"{source.path} is square ({shape[0]:,} × {shape[1]:,}), so its shape does not "
                "show which axis is which. Add --rows test if each row holds the scores of one "
                "test example, or --rows train if each holds those of one training example."
            )
        found = fits[0]
    elif found not in fits:
        who = "--rows specifies" if rows else f"{source.tool} writes"
        raise ImportingError(
            f"{source.path}: {_axes(shape, n_test, n_train)}, but {who} {found} examples as rows. "
            f"If the file was transposed, add --rows {fits[0]}; otherwise test and training data "
            "may be swapped."
        )
    note = ""
    if found == "train":
        note = f"The file is [{n_train:,} training, {n_test:,} test] examples; it is transposed."
    if len(fits) == 2 and rows is None:
        note = f"The matrix is square; its axes are read as {source.tool} writes them. {note}"
    return Blocks(source, n_test, n_train, found, note.strip())


def _axes(shape: tuple[int, ...], n_test: int, n_train: int) -> str:
    """Describe each axis by its length and what has that length in the study."""
    meanings = []
    for axis, length in zip(("rows", "columns"), shape, strict=True):
        names = [name for name, n in (("test", n_test), ("training", n_train)) if n == length]
        what = f"as many as {' and '.join(names)} examples" if names else "which matches neither"
        meanings.append(f"{length:,} {axis} ({what})")
    return f"it has {' and '.join(meanings)}"
