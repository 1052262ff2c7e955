"""What a person writes (ids, rows, algorithms, methods) resolved to what a study holds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from engine.store.errors import DataloupeError, StoreError
from engine.store.layout import Split
from engine.study.examples import read_columns
from engine.study.methods import ranked_methods
from engine.study.reader import StudyReader


def resolve_row(study: StudyReader, split: Split, example: int | str) -> int:
    """Turn a row number or an id into a row number.

    Raises:
        DataloupeError: There is no such example.
    """
    rows = study.dataset.rows(split)
    if isinstance(example, str):
        ids = read_columns(study, split, ["id"])["id"].to_pylist()
        if example in ids:
            return int(ids.index(example))
        if not example.lstrip("-").isdigit():
            raise DataloupeError(f"{split} has no example with id {example!r} in {study.root}.")
        example = int(example)
    if not 0 <= example < rows:
        raise DataloupeError(f"{split} example {example} does not exist: rows are 0 to {rows - 1}.")
    return example


def resolve_algorithm(study: StudyReader, name: str | None = None) -> str:
    """The name itself if the study has it, or its first algorithm for None."""
    if name is None:
        return next(iter(study.spec.algorithms))
    if name not in study.algorithms:
        known = ", ".join(study.algorithms)
        raise DataloupeError(f"{study.root} has no algorithm {name!r}; it has {known}.")
    return name


def resolve_method(study: StudyReader, algorithm: str, name: str | None = None) -> str:
    """The name itself if the algorithm has scores by this method, or its default for None.

    Raises:
        DataloupeError: There is no such method. StoreError: There are no scores yet.
    """
    methods = ranked_methods(study, algorithm)
    if not methods:
        raise StoreError(
            f"{study.root} has no scores yet. `dataloupe build {study.root}` makes them."
        )
    if name is not None and name not in methods:
        known = ", ".join(methods)
        raise DataloupeError(f"{algorithm} has no scores by method {name!r}; it has {known}.")
    return name or methods[0]


def resolve_training_rows(study: StudyReader, examples: Iterable[int | str]) -> np.ndarray:
    """The training rows of rows or ids, ascending int64, each once.

    Raises:
        DataloupeError: One does not exist, or they are none or all there are.
    """
    examples = list(examples)
    n_train = study.dataset.n_train
    places: dict[str, int] = {}
    if any(isinstance(example, str) for example in examples):
        ids = read_columns(study, "train", ["id"])["id"].to_pylist()
        places = {id_: row for row, id_ in reversed(list(enumerate(ids)))}

    def row_of(example: int | str) -> int | None:
        if isinstance(example, str):
            if example in places:
                return places[example]
            if not (example.isascii() and example.isdigit() and len(example) <= 12):
                return None
        return int(example) if 0 <= int(example) < n_train else None

    found = {example: row_of(example) for example in examples}
    unknown = [str(example) for example, row in found.items() if row is None]
    if unknown:
        named = ", ".join(one if len(one) <= 40 else one[:39] + "…" for one in unknown[:5])
        more = f" and {len(unknown) - 5:,} others" if len(unknown) > 5 else ""
        raise DataloupeError(
            f"{study.root} has no training examples {named}{more}: give ids, or rows from 0 "
            f"to {n_train - 1}."
        )
    rows = np.unique(np.array([row for row in found.values() if row is not None], np.int64))
    if not len(rows):
        raise DataloupeError("The removal set is empty: name at least one training example.")
    if len(rows) == n_train:
        raise DataloupeError(
            f"The removal set is all {n_train:,} training examples, which leaves nothing."
        )
    return rows
