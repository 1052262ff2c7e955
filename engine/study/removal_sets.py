"""Removal sets: sets of training examples that are kept in a study, to be asked about again.

    kept = keep_set(study, rows, "12 strongest supporters of test-17")
    removal_set(study, kept.key).rows

A set is named after what it is, the data, its rows and its words, and never changes: the same set
kept twice is one file, and a link to it says the same forever.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import store
from engine.store import layout
from engine.store.errors import DataloupeError, StoreError
from engine.study.names import resolve_training_rows
from engine.study.reader import StudyReader

LONGEST_WORDS = 200
HEADS = ("id", "ids", "row", "train_id")
"""First lines of files that list examples which are heads of a column."""
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class RemovalSet:
    """Training examples that may be removed.

    Attributes:
        key: Names it in addresses and files.
        rows: Training rows, ascending int64 `[k]`, at least one.
        words: How it was chosen, for people.
    """

    key: str
    rows: np.ndarray
    words: str


def keep_set(study: StudyReader, examples: Iterable[int | str], words: str) -> RemovalSet:
    """Keep a set of training examples, rows or ids.

    Raises:
        DataloupeError: One does not exist, they are none or all, or the folder cannot be written.
    """
    rows = resolve_training_rows(study, examples)
    words = " ".join(words.split())[:LONGEST_WORDS]
    data = study.dataset.fingerprint
    key = store.fingerprint_of("removal set", data, rows.tolist(), words)
    path = layout.removal_set_file(study.root, key)
    if not path.exists():
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        runs = [[int(run[0]), int(run[-1])] for run in np.split(rows, ends)]
        with store.writing_to(path.parent):
            store.write_json(path, {"words": words, "runs": runs, "data": data}, data)
    return RemovalSet(key, rows, words)


def removal_set(study: StudyReader, key: str) -> RemovalSet:
    """The set of this key, as it stands in an address: nothing in it is trusted.

    Raises:
        DataloupeError: There is no such set, or it belongs to other data.
        StoreError: Its file is broken.
    """
    path = layout.removal_set_file(study.root, key) if _KEY.fullmatch(key) else None
    if path is None or not path.exists():
        raise DataloupeError(f"This study keeps no removal set “{key[:40]}”.")
    content = store.read_json(path)
    try:
        data, words = str(content["data"]), str(content["words"])
        runs = [np.arange(int(first), int(last) + 1) for first, last in content["runs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is no whole removal set. Remove it.") from error
    if data != study.dataset.fingerprint:
        raise DataloupeError(
            f"The removal set {key} was chosen in other data than this study has now."
        )
    return RemovalSet(key, resolve_training_rows(study, np.concatenate(runs).tolist()), words)


def kept_sets(study: StudyReader, most: int) -> list[RemovalSet]:
    """The sets kept last, newest first; those of other data, and broken ones, are left out."""
    found = []
    for path in layout.removal_set_files(study.root)[:most]:
        with contextlib.suppress(DataloupeError):
            found.append(removal_set(study, path.stem))
    return found


@dataclass(frozen=True)
class Named:
    """Training examples that a text names.

    Attributes:
        rows: Ascending int64 `[k]`, each once.
        unknown: Words that name none, each once.
        repeated: How many words name an example that another named before.
    """

    rows: np.ndarray
    unknown: list[str]
    repeated: int


def parse_examples(study: StudyReader, text: str) -> Named:
    """Training examples that a text names.

    Ids or row numbers, with commas, semicolons or white space between them. An id that holds such
    signs is found where it fills a line.
    """
    ids = _ids(study)
    words: list[str] = []
    for line in text.splitlines():
        whole = line.strip()
        words += [whole] if whole in ids else re.split(r"[\s,;]+", whole)
    return _named(study, ids, words)


def parse_table(study: StudyReader, content: bytes) -> Named:
    """Training examples that a CSV file lists in its first column: ids or row numbers.

    Raises:
        DataloupeError: It is no UTF-8 text.
    """
    return _named(study, _ids(study), _first_column(content, "The file"))


def _ids(study: StudyReader) -> dict[str, int]:
    return {str(id_): row for row, id_ in enumerate(study.table("train")["id"])}


def _named(study: StudyReader, ids: dict[str, int], words: Iterable[str]) -> Named:
    n_train = study.dataset.n_train
    rows: list[int] = []
    unknown: list[str] = []
    for word in words:
        if word in ids:
            rows.append(ids[word])
        elif word.isascii() and word.isdigit() and len(word) <= 12 and int(word) < n_train:
            rows.append(int(word))
        elif word:
            unknown.append(word)
    found = np.unique(np.array(rows, np.int64))
    return Named(found, list(dict.fromkeys(unknown)), len(rows) - len(found))


def _first_column(content: bytes, name: str) -> list[str]:
    """Cells of a CSV's first column that are not empty, without its head."""
    try:
        lines = content.decode("utf-8-sig").splitlines()
        cells = [row[0].strip() for row in csv.reader(lines) if row and row[0].strip()]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataloupeError(f"{name} cannot be read as UTF-8 text.") from error
    # A table's head is no example.
    return cells[1:] if cells and cells[0].lower() in HEADS else cells


def read_examples(study: StudyReader, text: str) -> np.ndarray:
    """Training rows that a text names, or that a file of this name lists (a CSV's first column).

    Raises:
        DataloupeError: It names none, or some that do not exist; or the file cannot be read.
    """
    path = Path(text)
    if _is_file(path):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataloupeError(f"{path} cannot be read: {error.strerror}.") from error
        return resolve_training_rows(study, _first_column(content, str(path)))
    named = parse_examples(study, text)
    return resolve_training_rows(study, [*named.rows.tolist(), *named.unknown])


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a long list of ids is no name of a file
        return False
