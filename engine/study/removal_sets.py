"""Removal sets: sets of training examples that are saved in a study.

    kept = keep_set(study, rows, "12 strongest supporters of test-17")
    removal_set(study, kept.key).rows

The key of a set is a fingerprint of the data, its rows and its description, so a set never changes:
saving it twice gives one file, and a link to it never changes its meaning.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import store
from engine.store import layout
from engine.store.errors import DataloupeError, StoreError
from engine.store.layout import Split
from engine.study.names import (
    Named,
    find_row,
    find_rows,
    name_examples,
    resolve_rows,
    resolve_set_key,
    resolve_training_rows,
)
from engine.study.reader import StudyReader

LONGEST_WORDS = 200
MOST_SETS = 5_000
HEADERS = ("id", "ids", "row", "train_id", "file")
"""First lines of files of examples that are a column header."""


@dataclass(frozen=True)
class RemovalSet:
    """Training examples that may be removed.

    Attributes:
        key: Its name in URLs and files.
        rows: Training rows, ascending int64 `[k]`, at least one.
        words: Description of how it was chosen.
    """

    key: str
    rows: np.ndarray
    words: str


def keep_set(study: StudyReader, examples: Iterable[int | str], words: str) -> RemovalSet:
    """Save a set of training examples, given by rows or ids.

    Raises:
        UnknownName: An example does not exist.
        DataloupeError: The set is empty or contains all examples, or the folder is not writable.
    """
    named = name_set(study, examples, words)
    rows, words = named.rows, named.words
    data = study.dataset.fingerprint
    path = layout.removal_set_file(study.root, named.key)
    if not path.exists():
        if len(layout.removal_set_files(study.root)) >= MOST_SETS:
            raise DataloupeError(
                f"This study has {MOST_SETS:,} sets, the most there can be. Remove some files from "
                f"{path.parent}."
            )
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        runs = [[int(run[0]), int(run[-1])] for run in np.split(rows, ends)]
        with store.writing_to(path.parent):
            store.write_json(path, {"words": words, "runs": runs, "data": data}, data)
    return named


def name_set(study: StudyReader, examples: Iterable[int | str], words: str) -> RemovalSet:
    """The set that `keep_set` would save. Raises the same, except for the folder."""
    rows = resolve_training_rows(study, examples)
    words = " ".join(words.split())[:LONGEST_WORDS]
    data = study.dataset.fingerprint
    key = store.fingerprint_of("removal set", data, rows.tolist(), words)
    return RemovalSet(key, rows, words)


def removal_set(study: StudyReader, key: str) -> RemovalSet:
    """The set with this key. The key comes from a URL and is not trusted.

    Raises:
        UnknownName: There is no such set. DataloupeError: It belongs to different data.
        StoreError: Its file is broken.
    """
    path = layout.removal_set_file(study.root, resolve_set_key(study, key))
    content = store.read_json(path)
    try:
        data, words = str(content["data"]), str(content["words"])
        runs = [np.arange(int(first), int(last) + 1) for first, last in content["runs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is not a complete removal set. Remove it.") from error
    if data != study.dataset.fingerprint:
        raise DataloupeError(
            f"The removal set {key} was chosen from different data than this study has now."
        )
    return RemovalSet(key, resolve_training_rows(study, np.concatenate(runs)), words)


def kept_sets(study: StudyReader, most: int) -> list[RemovalSet]:
    """The most recent sets, newest first, without broken sets and those of different data."""
    found = []
    for path in layout.removal_set_files(study.root)[:most]:
        with contextlib.suppress(DataloupeError):
            found.append(removal_set(study, path.stem))
    return found


def parse_examples(study: StudyReader, text: str, split: Split = "train") -> Named:
    """Find the examples named in a text: ids, or rows such as #17.

    They are separated by commas, semicolons or white space. An id that contains such characters is
    found if it is alone on its line.
    """
    lines = text.splitlines()
    is_one = find_rows(study, split, lines) >= 0
    words: list[str] = []
    for line, is_example in zip(lines, is_one, strict=True):
        words += [line] if is_example else re.split(r"[\s,;]+", line.strip())
    return name_examples(study, split, words)


def parse_table(study: StudyReader, content: bytes) -> Named:
    """Find the training examples in the first column of a CSV or TSV file: ids, or rows (#17).

    Raises:
        DataloupeError: It is not UTF-8 text.
    """
    return name_examples(study, "train", _first_column(content, "The file"))


def _first_column(content: bytes, name: str) -> list[str]:
    """The non-empty cells of a table's first column, without the header."""
    try:
        text = content.decode("utf-8-sig")
        delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
        table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        cells = [row[0] for row in table if row and row[0].strip()]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataloupeError(f"{name} cannot be read as UTF-8 text.") from error
    return cells[1:] if cells and cells[0].strip().lower() in HEADERS else cells


def read_examples(study: StudyReader, text: str, split: Split = "train") -> np.ndarray:
    """Rows named in a text, or in the first column of the file with this name.

    Raises:
        UnknownName: Some do not exist. DataloupeError: None is named, or the file cannot be read.
    """
    path = Path(text)
    resolve = resolve_training_rows if split == "train" else _resolve_test_rows
    if find_row(study, split, text) is None and _is_file(path):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataloupeError(f"{path} cannot be read: {error.strerror}.") from error
        return resolve(study, _first_column(content, str(path)))
    named = parse_examples(study, text, split)
    return resolve(study, [*named.rows.tolist(), *named.unknown])


def _resolve_test_rows(study: StudyReader, examples: Iterable[int | str]) -> np.ndarray:
    return resolve_rows(study, "test", list(examples))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a long list of ids cannot be the name of a file
        return False
