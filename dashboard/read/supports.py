"""The URL parameters of Brittle, and cached reads of data support for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import streamlit as st

from engine.applications.brittle.data_issues import RULES, DataIssue, find_data_issues
from engine.applications.brittle.supports import AT_MOST, PROBABILITY, Supports, find
from engine.applications.brittle.table import STATUSES, brittle_table
from engine.applications.verification import Verification, read_verifications
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.study.reader import StudyReader
from engine.study.tags import TagsAndNotes, read_tags

MOST_SHOWN = 100
"""The largest removal set that the page shows."""
LIKELY = (50, 80, 90, 95)
"""Probabilities of a flip, in percent, that the page offers as the least one."""
LIKELY_BY_DEFAULT = round(100 * PROBABILITY)


@dataclass(frozen=True)
class Query:
    """The checked URL parameters specific to this page.

    Attributes:
        at_most: K.
        likely: The least probability of a flip, in percent.
        status, flag, tag, label: Filters; None for any.
        k: Number of examples removed in the view of one prediction; None for its support estimate.
        problems: Messages about invalid parameters.
    """

    at_most: int
    likely: int
    status: str | None
    flag: DataIssue | None
    tag: str | None
    label: str | None
    k: int | None
    problems: tuple[str, ...]


def read_query(study: StudyReader, given: Mapping[str, str] | None = None) -> Query:
    """Read and check the URL parameters; none is trusted, and invalid ones are reported.

    Args:
        given: The URL's parameters; None: those of the page that is drawn.
    """
    query = st.query_params.to_dict() if given is None else given
    problems: list[str] = []

    def number(name: str, default: int | None, most: int) -> int | None:
        text = query.get(name)
        if text is None or (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
            return default if text is None else int(text)
        problems.append(f"{name} must be 1 to {most:,}, not “{text[:60]}”.")
        return default

    def one_of(name: str, known: Iterable[str]) -> str | None:
        value = query.get(name)
        if value is None or value in known:
            return value
        problems.append(f"There is no {name} “{value[:60]}” here.")
        return None

    at_most = number("at_most", AT_MOST, MOST_SHOWN) or AT_MOST
    flag = next((name for name in RULES if name == one_of("flag", RULES)), None)
    likely = query.get("likely", str(LIKELY_BY_DEFAULT))
    if likely not in map(str, LIKELY):
        problems.append(f"likely must be one of {LIKELY}, not “{likely[:60]}”.")
        likely = str(LIKELY_BY_DEFAULT)
    return Query(
        at_most=at_most,
        likely=int(likely),
        status=one_of("status", STATUSES),
        flag=flag,
        tag=query.get("tag"),
        label=one_of("label", study.dataset.classes),
        k=number("removed", None, MOST_SHOWN),
        problems=tuple(problems),
    )


def supports(
    study: StudyReader,
    algorithm: str,
    method: str,
    at_most: int,
    likely: int = LIKELY_BY_DEFAULT,
) -> Supports:
    """Support estimates of every test example.

    Args:
        likely: The least probability of a flip, in percent.
    """
    found = stamps_of(_support_files(study, algorithm, method))
    return _supports(algorithm, method, at_most, likely, found, study)


def _support_files(study: StudyReader, algorithm: str, method: str) -> list[Path]:
    return [
        layout.dataset_file(study.root),
        layout.predictions_file(study.root, algorithm, "test"),
        layout.search_file(study.root, algorithm, method),
        layout.quality_file(study.root, algorithm),
        layout.predicted_file(study.root, algorithm, method),
        *(
            layout.outputs_file(study.root, algorithm, checkpoint, "test")
            for checkpoint in range(study.checkpoints(algorithm))
        ),
    ]


@st.cache_resource(max_entries=8, show_spinner="Estimating data support…")
def _supports(
    algorithm: str, method: str, at_most: int, likely: int, stamps: Stamps, _study: StudyReader
) -> Supports:
    return find(_study, algorithm, method, at_most, likely / 100)


def data_issues(study: StudyReader, algorithm: str, method: str) -> dict[DataIssue, np.ndarray]:
    """For each rule, which test examples have that data issue."""
    return _data_issues(algorithm, method, stamps_of(_issue_files(study, algorithm, method)), study)


def _issue_files(study: StudyReader, algorithm: str, method: str) -> list[Path]:
    return [
        layout.dataset_file(study.root),
        layout.predictions_file(study.root, algorithm, "test"),
        layout.search_file(study.root, algorithm, method),
        layout.top_test_file(study.root, algorithm, method),
        layout.totals_file(study.root, algorithm, method),
        layout.similarity_file(study.root, algorithm),
    ]


@st.cache_resource(max_entries=8, show_spinner="Looking for leaks and wrong labels…")
def _data_issues(
    algorithm: str, method: str, stamps: Stamps, _study: StudyReader
) -> dict[DataIssue, np.ndarray]:
    return find_data_issues(_study, algorithm, method)


def verifications(study: StudyReader, algorithm: str) -> list[Verification]:
    """All verifications of an algorithm."""
    files = layout.verification_files(study.root, algorithm)
    return _verifications(algorithm, stamps_of(files), study)


@st.cache_resource(max_entries=4, show_spinner=False)
def _verifications(algorithm: str, stamps: Stamps, _study: StudyReader) -> list[Verification]:
    return read_verifications(_study, algorithm)


def read_tagged(study: StudyReader, algorithm: str) -> dict[int, TagsAndNotes]:
    """Tags and notes by test row. Shared between sessions: do not modify."""
    files = [layout.dataset_file(study.root), *layout.triage_files(study.root)]
    return _tagged(algorithm, stamps_of(files), study)


@st.cache_resource(max_entries=4, show_spinner=False)
def _tagged(algorithm: str, stamps: Stamps, _study: StudyReader) -> dict[int, TagsAndNotes]:
    return read_tags(_study, algorithm)


def brittle(study: StudyReader, found: Supports) -> tuple[pa.Table, pd.DataFrame]:
    """Table of all test examples predicted to flip, ranked, as Arrow (files) and pandas (pages)."""
    files = [
        *_support_files(study, found.algorithm, found.method),
        *_issue_files(study, found.algorithm, found.method),
        *layout.verification_files(study.root, found.algorithm),
        *layout.triage_files(study.root),
    ]
    asked = found.algorithm, found.method, found.at_most, found.probability
    return _brittle(*asked, stamps_of(files), study, found)


@st.cache_resource(max_entries=8, show_spinner=False)
def _brittle(
    algorithm: str,
    method: str,
    at_most: int,
    probability: float,
    stamps: Stamps,
    _study: StudyReader,
    _found: Supports,
) -> tuple[pa.Table, pd.DataFrame]:
    table = brittle_table(
        _study,
        _found,
        verifications(_study, _found.algorithm),
        data_issues(_study, _found.algorithm, _found.method) if len(_found.ranked) else {},
        read_tagged(_study, _found.algorithm),
    )
    return table, table.to_pandas()


def matching(table: pd.DataFrame, query: Query) -> np.ndarray:
    """Positions in the table that pass all filters, ascending.

    Predictions that retraining refuted are not brittle: only the filter by status lists them.
    """
    keep = np.ones(len(table), dtype=bool)
    if query.status is None:
        keep &= (table["status"] != "refuted").to_numpy()
    for name in ("status", "label"):
        value = getattr(query, name)
        if value is not None:
            keep &= (table[name] == value).to_numpy()
    for column, value in (("data_issues", query.flag), ("tags", query.tag)):
        if value is not None:
            keep &= np.array([value in values for values in table[column]], dtype=bool)
    return np.flatnonzero(keep)
