"""Resolve what a person writes: examples, algorithms, methods, uploads and removal sets.

    resolve_row(study, "test", "0017")     # an id
    resolve_row(study, "test", "#17")      # row 17, unless an example has the id #17
    resolve_row(study, "test", 17)         # row 17, from Python

Ids are text and are compared exactly. A bare number means a row only if Dataloupe made the ids
(`test-17`): then `17` is short for `test-17`. Unknown names raise a one-line error with the most
similar known names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.store import layout
from engine.store.cache import read_cached_table, read_column_names
from engine.store.errors import DataloupeError, StoreError, UnknownName, UploadError
from engine.store.layout import Split
from engine.store.records import default_id
from engine.store.text import counted
from engine.study.examples import FILE, by_shard, read_columns
from engine.study.methods import ranked_methods, scored_methods
from engine.study.nearest import did_you_mean
from engine.study.reader import StudyReader
from engine.study.uploads import Upload

_ROW = re.compile(r"#([0-9]{1,12})")
_BARE = re.compile(r"0|[1-9][0-9]{0,11}")
_KEY = re.compile(r"[0-9a-f]{16}")
_SHOWN = 5


# --- examples -----------------------------------------------------------------------------------


def read_names(study: StudyReader, split: Split) -> pa.Table:
    """`id`, `label` and, where there is one, `file` of every example.

    They are read together because they are usually needed together.
    """
    return read_columns(study, split, _name_columns(study, split))


def read_names_of(
    study: StudyReader, split: Split, rows: Sequence[int] | np.ndarray
) -> list[dict[str, Any]]:
    """`read_names` of some examples, in their order, from the shards that hold them."""
    wanted = np.asarray(rows, np.int64)
    columns = _name_columns(study, split)
    found: list[dict[str, Any]] = [{}] * len(wanted)
    for shard, places, within in by_shard(wanted):
        table = read_cached_table(layout.table_file(study.root, split, shard), columns)
        named = table.take(pa.array(within)).to_pylist()
        for place, one in zip(places.tolist(), named, strict=True):
            found[place] = one
    return found


def _name_columns(study: StudyReader, split: Split) -> list[str]:
    known = read_column_names(layout.table_file(study.root, split, 0))
    return ["id", "label", *([FILE] if FILE in known else [])]


def find_rows(
    study: StudyReader, split: Split, examples: Sequence[int | str] | np.ndarray
) -> np.ndarray:
    """Row of each example, int64; −1 if there is no such example."""
    n = study.dataset.rows(split)
    if isinstance(examples, np.ndarray) and examples.dtype.kind in "iu":
        rows = examples.astype(np.int64)
        return np.where((rows >= 0) & (rows < n), rows, np.int64(-1))
    found = np.full(len(examples), -1, np.int64)
    words: dict[int, str] = {}
    for place, example in enumerate(examples):
        if isinstance(example, str):
            words[place] = example
        elif _is_row(example) and 0 <= example < n:
            found[place] = example
    if not words:
        return found
    ids = read_names(study, split)["id"]
    found[list(words)] = _rows_of_ids(ids, list(words.values()))
    for place in [place for place in words if found[place] < 0]:
        word = words[place].strip()
        found[place] = _rows_of_ids(ids, [word])[0] if word != words[place] else -1
        if found[place] < 0:
            found[place] = _row_of_number(ids, split, word)
    return found


def find_row(study: StudyReader, split: Split, example: int | str) -> int | None:
    """Row of an example; None if there is no such example."""
    row = int(find_rows(study, split, [example])[0])
    return row if row >= 0 else None


def resolve_row(study: StudyReader, split: Split, example: int | str) -> int:
    """Row of an example.

    Raises:
        UnknownName: There is no such example.
    """
    return int(resolve_rows(study, split, [example])[0])


def resolve_rows(
    study: StudyReader, split: Split, examples: Sequence[int | str] | np.ndarray
) -> np.ndarray:
    """Row of each example, in the given order, int64.

    Raises:
        UnknownName: An example does not exist.
    """
    found = find_rows(study, split, examples)
    if (found < 0).any():
        raise _unknown(study, split, [examples[int(place)] for place in np.flatnonzero(found < 0)])
    return found


def resolve_training_rows(
    study: StudyReader, examples: Iterable[int | str] | np.ndarray
) -> np.ndarray:
    """The rows of a removal set, ascending and unique, int64.

    Raises:
        UnknownName: An example does not exist.
        DataloupeError: The set is empty, or contains all training examples.
    """
    given = examples if isinstance(examples, np.ndarray) else list(examples)
    rows = np.unique(resolve_rows(study, "train", given))
    if not len(rows):
        raise DataloupeError("The removal set is empty: name at least one training example.")
    if len(rows) == study.dataset.n_train:
        raise DataloupeError(
            f"The removal set contains all {len(rows):,} training examples, which leaves nothing "
            "to train on: name fewer."
        )
    return rows


@dataclass(frozen=True)
class Named:
    """Examples found for a list of ids or rows.

    Attributes:
        rows: Ascending and unique, int64 `[k]`.
        unknown: Unique words that match no example.
        repeated: Number of words that repeat an earlier example.
        hint: The ids most similar to the first unknown word, as a “Did you mean” sentence; empty if
            none is similar.
    """

    rows: np.ndarray
    unknown: list[str]
    repeated: int
    hint: str


def name_examples(study: StudyReader, split: Split, words: Iterable[str]) -> Named:
    """Find the examples named by words. Unknown words are listed and raise no error."""
    given = [word for word in words if word]
    found = find_rows(study, split, given)
    known = found[found >= 0]
    rows = np.unique(known)
    unknown = list(dict.fromkeys(given[place].strip() for place in np.flatnonzero(found < 0)))
    hint = near_examples(study, split, unknown[0]) if unknown else ""
    return Named(rows, unknown, len(known) - len(rows), hint)


def near_examples(study: StudyReader, split: Split, word: str) -> str:
    """The ids most similar to a word, as a “Did you mean” sentence; empty if none is similar."""
    return did_you_mean(word.strip(), read_names(study, split)["id"])


def _is_row(example: Any) -> bool:
    return isinstance(example, int | np.integer) and not isinstance(example, bool)


def _rows_of_ids(ids: pa.ChunkedArray, words: list[str]) -> np.ndarray:
    """Row of each id; −1 for an unknown id."""
    # A lone surrogate, as in a damaged URL, is in no id.
    texts = pa.array([word if _encodes(word) else None for word in words], pa.string())
    if len(words) == 1:  # one scan of the column is faster than a hash table of all ids
        return np.array([pc.index(ids, texts[0]).as_py() if texts[0].is_valid else -1])
    found = pc.index_in(texts, value_set=ids, skip_nulls=True)
    rows: np.ndarray = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return rows


def _encodes(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _row_of_number(ids: pa.ChunkedArray, split: Split, word: str) -> int:
    """Row of `#17`, or of `17` if Dataloupe made the ids; −1 if a word is neither."""
    if (written := _ROW.fullmatch(word)) is not None:
        row = int(written.group(1))
        return row if row < len(ids) else -1
    row = int(word) if _BARE.fullmatch(word) else -1
    made = 0 <= row < len(ids) and ids[row].as_py() == default_id(split, row)
    return row if made else -1


def _unknown(study: StudyReader, split: Split, examples: Sequence[int | str]) -> UnknownName:
    last = study.dataset.rows(split) - 1
    shown = ", ".join(_shown(example) for example in examples[:_SHOWN])
    if len(examples) > _SHOWN:
        shown += f" and {counted(len(examples) - _SHOWN, 'other')}"
    kind = "training" if split == "train" else "test"
    problem = f"{study.root} has no {kind} example{'s' * (len(examples) > 1)} {shown}"
    words = [example for example in examples if isinstance(example, str)]
    if not words:
        return UnknownName(f"{problem}: rows are 0 to {last}.")
    hint = near_examples(study, split, words[0])
    return UnknownName(f"{problem}.{hint} Give an id, or a row from #0 to #{last}.", hint)


def _shown(example: int | str) -> str:
    if not isinstance(example, str):
        return str(example)
    return repr(example if len(example) <= 40 else example[:39] + "…")


# --- algorithms, methods, uploads, removal sets -------------------------------------------------


def resolve_algorithm(study: StudyReader, name: str | None = None) -> str:
    """Return the name if the study has it; for None, its first algorithm.

    Raises:
        UnknownName: There is no such algorithm.
    """
    if name is None:
        return next(iter(study.spec.algorithms))
    known = study.algorithms
    if name not in known:
        hint = _hint_of_upload(study, name) or did_you_mean(name, known)
        raise UnknownName(
            f"{study.root} has no algorithm {name!r}; it has {', '.join(known)}.{hint}", hint
        )
    return name


def resolve_method(study: StudyReader, algorithm: str, name: str | None = None) -> str:
    """Return the name if the algorithm has ranked scores by this method; for None, the default.

    Raises:
        UnknownName: There is no such method. StoreError: There are no scores yet.
    """
    methods = ranked_methods(study, algorithm)
    if not methods:
        raise StoreError(
            f"{study.root} has no scores yet. `dataloupe build {study.root}` makes them."
        )
    return methods[0] if name is None else _known_method(algorithm, name, methods)


def resolve_scored_method(study: StudyReader, algorithm: str, name: str | None = None) -> str:
    """Like `resolve_method`, for scores that need not be ranked.

    Raises:
        UnknownName: There is no such method. StoreError: There are no scores yet.
    """
    methods = scored_methods(study, algorithm)
    if not methods:
        raise StoreError(
            f"{algorithm} has no scores yet. `dataloupe build {study.root}` makes the scores of "
            "the algorithms in study.toml; an upload gets scores when it is compared."
        )
    return methods[0] if name is None else _known_method(algorithm, name, methods)


def _known_method(algorithm: str, name: str, methods: list[str]) -> str:
    if name in methods:
        return name
    hint = did_you_mean(name, methods)
    raise UnknownName(
        f"{algorithm} has no scores by method {name!r}; it has {', '.join(methods)}.{hint}", hint
    )


def resolve_upload(study: StudyReader, name: str) -> Upload:
    """An upload by its id.

    Raises:
        UploadError: There is no such upload.
    """
    uploads = study.uploads
    if name not in uploads:
        hint = _hint_of_upload(study, name) or did_you_mean(name, uploads)
        known = ", ".join(uploads) or "none"
        raise UploadError(f"{study.root} has no upload {name!r}; it has {known}.{hint}")
    return uploads[name]


def _hint_of_upload(study: StudyReader, name: str) -> str:
    """A “Did you mean” sentence with the id of the upload that has this display name."""
    found = [upload.id for upload in study.uploads.values() if upload.name == name]
    return f" Did you mean {found[0]!r}, which has this name?" if len(found) == 1 else ""


def resolve_set_key(study: StudyReader, key: str) -> str:
    """Return the key if the study has a removal set with it.

    Raises:
        UnknownName: There is no such set.
    """
    if not (_KEY.fullmatch(key) and layout.removal_set_file(study.root, key).exists()):
        hint = did_you_mean(key, [path.stem for path in layout.removal_set_files(study.root)])
        raise UnknownName(f"This study has no removal set “{key[:40]}”.{hint}", hint)
    return key
