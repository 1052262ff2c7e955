"""Files, folders, arrays, Hugging Face names and functions → rows of the training and test split.

    choosing    which files or folders are a split: the rule
    files       which formats there are
    texts       text files: encodings, types of columns
    delimited   CSV and its relatives
    json_files  JSON in all its layouts
    arrow_files Parquet, Arrow, Feather, `save_to_disk`
    folders     pictures in class folders
    tar_files   WebDataset shards
    arrays      `.npz`
    hub         Hugging Face names, functions
    rows        what all of them give

Everything becomes a Hugging Face `Dataset`, memory-mapped where it is large. Local files never use
the network: only a source of the form `owner/name` that is not a path is looked up on the hub.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from engine.data.assets import asset
from engine.data.reading.arrays import read_npz
from engine.data.reading.arrow_files import STATE, read_saved
from engine.data.reading.choosing import read_split
from engine.data.reading.files import (
    KNOWN_SUFFIXES,
    Reading,
    name_and_format,
    quiet,
    read_files,
    rows_of,
)
from engine.data.reading.hub import read_function, read_hub
from engine.data.reading.rows import Rows, no_split
from engine.store.errors import DataError
from engine.store.spec import DataSpec

EMBEDDED = ("fashion-mnist", "emoji", "country-facts")
"""Sources that come with Dataloupe."""


def read_splits(
    spec: DataSpec, base: Path, scratch: Path, as_written: frozenset[str]
) -> tuple[Rows, Rows]:
    """Read the training and the test split.

    Args:
        base: The study's folder, where relative paths start; trusted if it may name code.
        scratch: An empty folder; files that cannot be memory-mapped are converted into it.
        as_written: Columns of labels and ids: text files give their texts unchanged.

    Raises:
        DataError: What was not found, and where it was expected.
    """
    if spec.source.startswith("python:"):
        return read_function(spec, base)
    path = _find(spec.source, base)
    if path is None:
        return read_hub(spec, base)
    reading = Reading((spec.train, spec.test), as_written, scratch, spec.pictures)
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return read_npz(path, spec)
        if name_and_format(path) is None:
            known = ", ".join(KNOWN_SUFFIXES)
            raise DataError(f"{path} is of no known format; take one of {known}, or a folder.")
        return _by_column(read_files([path], reading), path, spec)
    if (path / STATE).is_file():
        with quiet():
            return _by_column(rows_of(read_saved(path), [path / STATE]), path, spec)
    named = path / spec.train, path / spec.test
    if all(one.exists() for one in named) and named[0].samefile(named[1]):
        raise DataError(f"{named[0]} and {named[1]} are the same, by a link or the case of a name.")
    return read_split(path, spec.train, reading), read_split(path, spec.test, reading)


def _find(source: str, base: Path) -> Path | None:
    if source in EMBEDDED:
        return asset(source)
    path = base / Path(source).expanduser()
    if path.exists():
        return path
    reads_like_a_hub_name = re.fullmatch(r"[\w.-]+/[\w.-]+", source)
    is_file_name = source.lower().endswith(KNOWN_SUFFIXES)
    if not reads_like_a_hub_name or path.parent.exists() or is_file_name:
        raise DataError(f"{path} does not exist. Set `source` under [data] to a file or a folder.")
    return None


def _by_column(rows: Rows, path: Path, spec: DataSpec) -> tuple[Rows, Rows]:
    """One table with both splits; its column `split` separates them."""
    if "split" not in rows.table.column_names:
        suffix = path.suffix
        raise DataError(
            f"{path} has no column `split` that separates training from test rows (columns: "
            f"{', '.join(rows.table.column_names)}). Add it, or give a folder with "
            f"{spec.train}{suffix} and {spec.test}{suffix}."
        )
    split = np.array(rows.table["split"])
    found = []
    for name in (spec.train, spec.test):
        chosen = np.flatnonzero(split == name)
        if not len(chosen):
            raise no_split(path, name, sorted({str(value) for value in split}))
        table = rows.table.select(chosen, keep_in_memory=True).remove_columns("split")
        found.append(Rows(table, rows.folder, rows.notes))
    return found[0], found[1]


__all__ = ["EMBEDDED", "Rows", "quiet", "read_splits"]
