"""Cached reads of the open study and its tables.

Caches are keyed by the stamps (time, size and inode) of all files they come from, so a page sees
every change of a study that is built, rebuilt or removed while it is open. Nothing here imports
torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import streamlit as st

from dashboard.location import Location
from dashboard.read.columns import Effect, effects_of, memberships, numbers_of, output_name
from dashboard.slice_parameters import NEED_SCORES, TRAINING_SORTS
from engine.applications.verification import Verification, read_verifications
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.store.errors import SpecError
from engine.store.layout import Split
from engine.store.records import Badge
from engine.study.capabilities import has
from engine.study.examples import TEXT, shard_count
from engine.study.groups import read_groups
from engine.study.measured_quality import read_badge, read_lds_of_each
from engine.study.models import has_predictions, read_predictions
from engine.study.names import find_row, near_examples, read_names
from engine.study.rankings import read_principal_directions, read_top, read_totals
from engine.study.reader import StudyReader
from engine.study.slices import SavedSlice, saved_slices
from engine.study.text_search import SearchableTexts, searchable_texts

STUDY_VARIABLE = "DATALOUPE_STUDY"
"""Environment variable with the folder of the study to show."""

MOST_COUNTERS = 2**22
"""Up to so many different values, counting all is faster than sorting those that there are."""
DIRECTIONS = 10
"""Number of principal directions of the attributions to choose from."""


@dataclass(frozen=True)
class Examples:
    """The examples of one split, with predictions if they are built.

    Attributes:
        table: `id`, `label`, the task's columns and, once they are built, the predictions:
            `predicted`, `output` and what else the task gives, such as `correct` and `confidence`.
            Shared between sessions: do not modify.
        ids: Index of the ids, to find a row.
        codes: The class columns, `label` and `predicted`, as indices into `classes`: int64 `[n]`.
            Empty unless each example has one class.
        members: The same columns where examples have several classes: bool `[n, classes]`.
        numbers: Columns of numbers, float64 `[n]`: `label` where labels are numbers, `error`
            (predicted minus label) where the task gives it, and `output`.
        output: Name of the model output for people, such as `margin`.
        predicted: What `predicted` is, where it holds numbers (`engine.store.records.Dataset`).
        source: Their study and split, to read their texts from.
        counted: What was counted of all of them, by its name: every filter shows it.
    """

    table: pd.DataFrame
    ids: pd.Index[str]
    classes: list[str]
    codes: dict[str, np.ndarray]
    members: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]
    output: str
    predicted: str = "prediction"
    source: tuple[StudyReader, Split] | None = None
    counted: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def has_predictions(self) -> bool:
        return "output" in self.numbers

    @property
    def has_outcomes(self) -> bool:
        """Whether it is known which predictions are right."""
        return "correct" in self.table

    @property
    def columns(self) -> set[str]:
        """Everything that is known of each example."""
        return {*self.table.columns, *self.numbers}

    @property
    def effects(self) -> tuple[Effect, Effect]:
        """What examples with scores above and below 0 do to an output."""
        return effects_of(self.classes)

    def outcome_mask(self) -> np.ndarray:
        """Which predictions are right, bool `[n]`."""
        return self.table["correct"].to_numpy(dtype=bool)

    @property
    def has_texts(self) -> bool:
        return TEXT in self.table and self.source is not None

    @property
    def texts(self) -> SearchableTexts:
        """Their texts, prepared for searching."""
        assert self.source is not None
        return searchable_texts(*self.source)


def open_study() -> StudyReader:
    """The study that this server shows.

    Raises:
        SpecError, StoreError: The folder is missing or is not a study.
    """
    root = os.environ.get(STUDY_VARIABLE)
    if not root:
        raise SpecError("No study is set. Start the dashboard with `dataloupe serve STUDY`.")
    return StudyReader.open(root)


def requested_row(study: StudyReader, split: Split, text: str | None) -> tuple[int | None, str]:
    """(row, hint) for an example's id or row number as text.

    The row is None if there is no such example; the hint then suggests the most similar ids.
    """
    if text is None:
        return None, ""
    row = find_row(study, split, text)
    return row, "" if row is not None else near_examples(study, split, text)


def typed_id(study: StudyReader, split: Split, text: str) -> str | None:
    """The id of the example named in a text field, for a URL that does not depend on row order.

    The text itself if there is no such example; None if it is empty.
    """
    row = find_row(study, split, text)
    ids = read_names(study, split)["id"]
    return text.strip() or None if row is None else str(ids[row].as_py())


def examples(study: StudyReader, split: Split, algorithm: str | None = None) -> Examples:
    """The examples of a split, with the predictions of `algorithm` if they are built."""
    files = [layout.dataset_file(study.root)]
    if algorithm is not None and has_predictions(study, algorithm):
        files.append(layout.predictions_file(study.root, algorithm, split))
    return _examples(split, algorithm, stamps_of(files), study)


@st.cache_resource(max_entries=16, show_spinner=False)
def _examples(split: Split, algorithm: str | None, stamps: Stamps, _study: StudyReader) -> Examples:
    if len(stamps) > 1:
        data = examples(_study, split)  # a million of them are kept in memory once
        predictions = read_predictions(_study, split, algorithm)
        own = {name: f"{name} (data)" for name in predictions if name in data.table}
        table, ids = pd.concat([data.table.rename(columns=own), predictions], axis=1), data.ids
    else:
        table = _study.table(split)
        ids = pd.Index(table["id"].astype(str))
    dataset = _study.dataset
    named = [column for column in ("label", "predicted") if column in table]
    places = pd.Index(dataset.classes)
    codes, members = {}, {}
    if dataset.labels == "class":
        for column in named:
            codes[column] = places.get_indexer(pd.Index(table[column])).astype(np.int64)
    elif dataset.labels == "classes":
        members = {column: memberships(table[column], dataset.classes) for column in named}
    return Examples(
        table,
        ids,
        dataset.classes,
        codes,
        members,
        numbers_of(table, dataset.labels),
        output_name(dataset),
        dataset.predicted,
        (_study, split),
    )


def kept_slices(study: StudyReader) -> tuple[list[SavedSlice], list[str]]:
    """(the saved slices, error messages for unreadable ones)."""
    return _kept_slices(stamps_of(layout.slice_files(study.root)), study)


@st.cache_resource(max_entries=4, show_spinner=False)
def _kept_slices(stamps: Stamps, _study: StudyReader) -> tuple[list[SavedSlice], list[str]]:
    return saved_slices(_study)


def badge(study: StudyReader, algorithm: str, method: str) -> Badge:
    """The quality badge of a method's scores."""
    files = [
        layout.search_file(study.root, algorithm, method),
        layout.solver_file(study.root, algorithm),
        layout.method_file(study.root, algorithm, method),
        layout.quality_file(study.root, algorithm),
        layout.spec_file(study.root),
    ]
    if algorithm in study.uploads:
        files.append(layout.upload_file(study.root, algorithm))
    return _badge(algorithm, method, stamps_of(files), study)


@st.cache_resource(max_entries=16, show_spinner=False)
def _badge(algorithm: str, method: str, stamps: Stamps, _study: StudyReader) -> Badge:
    return read_badge(_study, algorithm, method)


def kept_verifications(study: StudyReader, algorithm: str) -> list[Verification]:
    """All verifications, oldest first. Raises StoreError for a broken one."""
    files = layout.verification_files(study.root, algorithm)
    return _kept_verifications(algorithm, stamps_of(files), study)


@st.cache_resource(max_entries=4, show_spinner=False)
def _kept_verifications(algorithm: str, stamps: Stamps, _study: StudyReader) -> list[Verification]:
    return read_verifications(_study, algorithm)


def lds_of_each(study: StudyReader, algorithm: str, method: str) -> np.ndarray | None:
    """LDS of every test example `[n_test]`; None if predicted outputs are not stored."""
    path = layout.predicted_file(study.root, algorithm, method)
    if not path.exists():
        return None
    return _lds_of_each(algorithm, method, stamps_of([path]), study)


@st.cache_resource(max_entries=16, show_spinner=False)
def _lds_of_each(algorithm: str, method: str, stamps: Stamps, _study: StudyReader) -> np.ndarray:
    return read_lds_of_each(_study, algorithm, method)


def matching(examples: Examples, filters: dict[str, Any]) -> np.ndarray:
    """Rows that pass all filters, ascending.

    A filter is a column's value, or its (smallest, largest) value; `group` is a column and its
    value, `id` a substring of the id or the file, `text` words of the text, `length` its fewest and
    most words, and `only` is the rows themselves.
    """
    keep = np.ones(len(examples.table), dtype=bool)
    for name, value in filters.items():
        keep &= _passes(examples, name, value)
    return np.flatnonzero(keep)


def _passes(examples: Examples, name: str, value: Any) -> np.ndarray:
    if name == "only":
        found = np.zeros(len(examples.table), dtype=bool)
        found[list(value)] = True
    elif name == "group":
        assert examples.source is not None
        found = read_groups(*examples.source, value[0]) == value[1]
    elif name == "id":
        found = _containing(examples.table["id"], value)
        if "file" in examples.table:
            found |= _containing(examples.table["file"], value)
    elif name == "text":
        found = examples.texts.matching(value)
    elif name == "length":
        lengths = examples.texts.lengths
        fewest, most = value
        found = np.ones(len(lengths), dtype=bool)
        found &= True if fewest is None else lengths >= fewest
        found &= True if most is None else lengths <= most
    elif name in examples.codes:
        found = examples.codes[name] == examples.classes.index(value)
    elif name in examples.members:
        found = examples.members[name][:, examples.classes.index(value)]
    else:
        values = examples.numbers.get(name, examples.table.get(name))
        values = np.asarray(values)
        inside = isinstance(value, tuple)
        found = (values >= value[0]) & (values <= value[1]) if inside else values == value
    return np.asarray(found, dtype=bool)


def _containing(column: pd.Series, part: str) -> np.ndarray:
    """Which texts contain a part, whatever their case; missing ones do not."""
    texts = pa.array(column.astype("str"))
    if part.isascii():  # twice as fast
        found = pc.match_substring(pc.ascii_lower(texts), part.lower())
    else:
        found = pc.match_substring(texts, part, ignore_case=True)
    return np.asarray(pc.fill_null(found, False), bool)


def slice_rows(study: StudyReader, examples: Examples, location: Location) -> np.ndarray:
    """Rows of the slice in its order; ties keep the order of the data."""
    rows = matching(examples, location.slice.filters())
    sort = location.slice.sort
    if sort is None or sort in TRAINING_SORTS:
        return rows
    if sort in NEED_SCORES:
        keys = -np.abs(
            read_top(study, location.algorithm, location.method)[f"{sort}_score"][rows, 0]
        )
    else:
        name = sort.removeprefix("-")
        keys = np.asarray(examples.numbers.get(name, examples.table.get(name)))[rows]
        keys = -np.abs(keys) if name == "error" else -keys if sort.startswith("-") else keys
    return rows[np.argsort(keys, kind="stable")]


def counts(examples: Examples, column: str, filters: dict[str, Any]) -> np.ndarray:
    """Number of rows for each value of `column` under the other filters, int64.

    The values are the classes, or (wrong, correct).
    """
    others = {name: value for name, value in filters.items() if name != column}
    if not others:
        return _of_all(examples, column, lambda: _counts(examples, column, slice(None)))
    return _counts(examples, column, matching(examples, others))


def _counts(examples: Examples, column: str, rows: np.ndarray | slice) -> np.ndarray:
    if column in examples.codes:
        return np.bincount(examples.codes[column][rows], minlength=len(examples.classes))
    if column in examples.members:
        found: np.ndarray = examples.members[column][rows].sum(axis=0)
        return found
    return np.bincount(examples.table[column].to_numpy(dtype=np.int64)[rows], minlength=2)


def _of_all(examples: Examples, name: str, count: Callable[[], np.ndarray]) -> np.ndarray:
    """What is counted of all examples; counted once."""
    if name not in examples.counted:
        examples.counted[name] = count()
    return examples.counted[name]


def mix_ups(examples: Examples, filters: dict[str, Any]) -> np.ndarray:
    """(true class, predicted class, count) of wrong predictions, most frequent first: int64
    `[k, 3]`.

    The class filters are ignored; all others apply.
    """
    others = {name: value for name, value in filters.items() if name not in examples.codes}
    if not others:
        return _of_all(examples, "mix-ups", lambda: _mix_ups(examples, slice(None)))
    return _mix_ups(examples, matching(examples, others))


def _mix_ups(examples: Examples, rows: np.ndarray | slice) -> np.ndarray:
    label, predicted = (examples.codes[name][rows] for name in ("label", "predicted"))
    wrong = label != predicted
    n = len(examples.classes)
    pairs, numbers = _counted(label[wrong] * n + predicted[wrong], n * n)
    order = np.argsort(-numbers, kind="stable")
    return np.stack([*np.divmod(pairs, n), numbers], axis=1)[order]


def _counted(values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The values below `most` that there are, ascending, and how often each is."""
    if most > MOST_COUNTERS:
        return np.unique(values, return_counts=True)
    numbers = np.bincount(values)
    found = np.flatnonzero(numbers)
    return found, numbers[found]


@dataclass(frozen=True)
class Weights:
    """Total influence of each training example on all test predictions.

    Attributes:
        support, oppose: Sums of its influences of each sign `[n_train]`.
        total: Sum of their sizes `[n_train]`.
        order: Training rows, largest total first.
        unit: Of the sums: `in units of the margin`, or `in scores without a unit` while the method
            is uncalibrated.
        calibrated: Whether they are in units of the output.
    """

    support: np.ndarray
    oppose: np.ndarray
    total: np.ndarray
    order: np.ndarray
    unit: str
    calibrated: bool


def weights(study: StudyReader, algorithm: str, method: str) -> Weights:
    """The total influence of the training examples, in the unit of the model output if the scores
    are calibrated."""
    files = [
        layout.totals_file(study.root, algorithm, method),
        layout.quality_file(study.root, algorithm),
    ]
    slope = badge(study, algorithm, method).slope
    return _weights(algorithm, method, stamps_of(files), slope, study)


@st.cache_resource(max_entries=16, show_spinner=False)
def _weights(
    algorithm: str, method: str, stamps: Stamps, slope: float | None, _study: StudyReader
) -> Weights:
    totals = read_totals(_study, algorithm, method)
    support, oppose = (
        (1.0 if slope is None else slope) * np.array(totals[name])
        for name in ("train_support", "train_oppose")
    )
    total = support - oppose
    output = output_name(_study.dataset)
    unit = "in scores without a unit" if slope is None else f"in units of the {output}"
    return Weights(
        support, oppose, total, np.argsort(-total, kind="stable"), unit, slope is not None
    )


def directions(study: StudyReader, algorithm: str, method: str) -> np.ndarray | None:
    """Projections of training examples on the first principal directions of the attributions.

    `[n_train, DIRECTIONS]`, or fewer columns; None if they are not stored.
    """
    files = [
        layout.train_vectors_file(study.root, algorithm, method, n)
        for n in range(shard_count(study, "train"))
    ]
    return _directions(algorithm, method, stamps_of(files), study)


@st.cache_resource(max_entries=8, show_spinner=False)
def _directions(
    algorithm: str, method: str, stamps: Stamps, _study: StudyReader
) -> np.ndarray | None:
    return read_principal_directions(_study, DIRECTIONS, algorithm, method)


def what_it_shows(study: StudyReader) -> str:
    """What an example of the study is: `picture`, `text`, or a `pair` of both; before the data are
    read, `example`."""
    if not study.has_data:
        return "example"
    if has(study, "pictures") and has(study, "texts"):
        return "pair"
    return "picture" if has(study, "pictures") else "text"
