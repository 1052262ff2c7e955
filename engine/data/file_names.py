"""The file that a picture came from: its path below the source, as the column `file`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa

from engine.data.places.place import place_of

FILE = "file"
"""Name of the column, and of the column of ids that takes its values."""

_ROWS_AT_ONCE = 1024
"""Rows whose pictures may be in memory at once."""

# What the Hugging Face libraries put before a path inside a repository or an archive.
_REPOSITORY = re.compile(r"^hf://(?:datasets/)?[^/]+/[^/@]+(?:@[^/]+)?/")
_EXTRACTED = re.compile(r"^.*/downloads/extracted/[0-9a-f]{64}/")
_IN_ARCHIVE = re.compile(r"^[a-z]+://(.*?)::.*$")


def file_names(
    table: datasets.Dataset, column: str, source: Path | None
) -> list[str | None] | None:
    """The file of each picture, with `/` between folders; None for a picture without a file.

    Args:
        table: A split whose pictures are not decoded.
        column: The column of its inputs.
        source: Where its paths start; paths elsewhere stay as they are.

    Returns:
        None if the inputs are not pictures.
    """
    if not isinstance(table.features[column], datasets.Image):
        return None
    start = None if source is None else _whole(source)
    files: list[str | None] = []
    for batch in table.select_columns([column]).with_format("arrow").iter(_ROWS_AT_ONCE):
        found = batch[column].combine_chunks()
        on_disk = found.field("bytes").is_null()
        for path, there in zip(found.field("path").to_pylist(), on_disk.to_pylist(), strict=True):
            files.append((_below(path, start, there) or None) if path else None)
    return files


def _below(path: str, start: Path | None, on_disk: bool) -> str:
    place = place_of(path)
    if place.inside:
        if place.is_cell:  # with a name that somebody wrote down
            return _below(place.name, start, on_disk=False) if place.name else ""
        return f"{_below(place.file, start, on_disk=True)}/{place.name}"
    if start is not None and path.startswith(f"{start}/") and "/." not in path:
        return path[len(f"{start}/") :]
    if (inside := _IN_ARCHIVE.match(path)) is not None:
        return inside.group(1)
    if (repository := _REPOSITORY.match(path)) is not None:
        return path[repository.end() :]
    # The path of a picture whose bytes are in the table is a name that somebody wrote down.
    if start is not None and (on_disk or Path(path).is_absolute()):
        whole = _whole(Path(path))
        path = str(whole.relative_to(start)) if whole.is_relative_to(start) else path
    path = path.replace(os.sep, "/")
    extracted = _EXTRACTED.match(path)
    return path if extracted is None else path[extracted.end() :]


def _whole(path: Path) -> Path:
    """The path from the root, without `..`; links stay what they are."""
    return Path(os.path.normpath(path.absolute()))


def has_files(files: Sequence[str | None] | None) -> bool:
    """Whether any picture has a file."""
    return files is not None and any(file is not None for file in files)


def ids_are_files(table: datasets.Dataset, id_: str | None, input_: str) -> bool:
    """Whether `id = "file"` asks for the files of the pictures, not for a column of the source."""
    return id_ == FILE and (input_ == FILE or FILE not in table.column_names)


def as_column(files: Sequence[str | None]) -> pa.ChunkedArray:
    """The files as a column of ids."""
    return pa.chunked_array([pa.array(files, pa.string())])
