"""What the training set shows of each example: cached, and sorted once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from dashboard.location import Location
from dashboard.read.studies import Examples, matching, slice_rows, weights
from dashboard.slice_parameters import TRAINING_SORTS
from engine.applications.curation.label_suspicion import (
    LabelSuspicion,
    has_suspicion,
    label_suspicion,
)
from engine.applications.curation.net_influence import net_influence
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.store.quantities import (
    DISAGREEMENT,
    LABEL_LOG_ODDS,
    NET_INFLUENCE,
    SELF_INFLUENCE,
    Quantity,
)
from engine.study.decisions import Decision, read_decisions
from engine.study.reader import StudyReader

SHOWN: dict[str, tuple[str, Quantity]] = {
    "suspicion": ("log-odds of the label", LABEL_LOG_ODDS),
    "disagreement": ("neighbors disagree", DISAGREEMENT),
    "self": ("self-influence", SELF_INFLUENCE),
    "harm": ("net influence", NET_INFLUENCE),
    "help": ("net influence", NET_INFLUENCE),
}
"""Sort order of training examples → what its cards show: in words, and its quantity."""
ANY, UNDECIDED = "any", "undecided"
DECIDED = {
    ANY: "Any decision",
    UNDECIDED: "No decision yet",
    "keep": "Kept",
    "relabel": "Relabeled",
    "remove": "Removed",
}
"""Filter of training examples by what was decided about them → its name for people."""
FEWEST_TO_REVIEW = 20
"""The queue is at least so long, if nothing stands out."""


@dataclass(frozen=True)
class Curation:
    """Columns of all training examples; shared between sessions, never changed.

    Attributes:
        suspicion: None without classes or predictions.
        values: Sort order → its numbers `[n_train]`, NaN where unknown.
        orders: Sort order → all rows, first what it asks for.
        unit: Of the net influence, as a part of a sentence; empty without scores.
        calibrated: Whether the net influence is in units of the model output.
    """

    suspicion: LabelSuspicion | None
    values: dict[str, np.ndarray]
    orders: dict[str, np.ndarray]
    unit: str
    calibrated: bool

    def titles(self) -> dict[str, str]:
        """The sort orders that there are, with their titles."""
        return {name: title for name, title in TRAINING_SORTS.items() if name in self.orders}


def curation(study: StudyReader, algorithm: str, method: str | None) -> Curation:
    """The columns of the training set, by an algorithm and a method."""
    files = _evidence_files(study, algorithm)
    found = None
    if has_suspicion(study, algorithm):
        found = _suspicion(algorithm, stamps_of(files), study)
    if method is not None:
        files = [
            *files,
            layout.totals_file(study.root, algorithm, method),
            layout.quality_file(study.root, algorithm),
            layout.search_file(study.root, algorithm, method),
        ]
    return _curation(algorithm, method, stamps_of(files), study, found)


def _evidence_files(study: StudyReader, algorithm: str) -> list[Path]:
    """Every file that suspicion is made of, those of the runs by their folder."""
    root = study.root
    checkpoints = range(study.checkpoints(algorithm))
    return [
        layout.spec_file(root),
        layout.dataset_file(root),
        layout.predictions_file(root, algorithm, "train"),
        layout.predictions_file(root, algorithm, "test"),
        layout.similarity_file(root, algorithm),
        layout.bank_folder(root, algorithm),
        layout.bank_import_file(root, algorithm),
        *(layout.outputs_file(root, algorithm, m, "train") for m in checkpoints),
    ]


@st.cache_resource(max_entries=4, show_spinner="Comparing labels with what models make of them…")
def _suspicion(algorithm: str, stamps: Stamps, _study: StudyReader) -> LabelSuspicion:
    return label_suspicion(_study, algorithm)


@st.cache_resource(max_entries=8, show_spinner=False)
def _curation(
    algorithm: str,
    method: str | None,
    stamps: Stamps,
    _study: StudyReader,
    _suspicion: LabelSuspicion | None,
) -> Curation:
    values: dict[str, np.ndarray] = {}
    orders: dict[str, np.ndarray] = {}

    def add(name: str, numbers: np.ndarray | None, sign: int = -1) -> None:
        if numbers is not None:
            values[name] = numbers
            orders[name] = np.argsort(sign * numbers, kind="stable")  # NaN comes last

    if _suspicion is not None:
        values["suspicion"], orders["suspicion"] = _suspicion.log_odds, _suspicion.order
        add("disagreement", _suspicion.disagreement)
        add("self", _suspicion.self_influence)
    unit, calibrated = "", False
    if method is not None:
        weight = weights(_study, algorithm, method)
        unit, calibrated = weight.unit, weight.calibrated
        net, _ = net_influence(_study, algorithm, method)
        add("harm", net, 1)
        add("help", net)
    return Curation(_suspicion, values, orders, unit, calibrated)


def decisions(study: StudyReader) -> dict[int, Decision]:
    """What was decided about training examples, by row. Shared: do not modify."""
    files = [layout.dataset_file(study.root), *layout.triage_files(study.root)]
    return _decisions(stamps_of(files), study)


@st.cache_resource(max_entries=4, show_spinner=False)
def _decisions(stamps: Stamps, _study: StudyReader) -> dict[int, Decision]:
    return read_decisions(_study)


def training_rows(
    study: StudyReader, examples: Examples, location: Location, found: Curation
) -> np.ndarray:
    """Rows of the slice in its order; ties keep the order of the data."""
    order = found.orders.get(location.slice.sort or "")
    if order is None:
        return slice_rows(study, examples, location)
    filters = location.slice.filters()
    if not filters:
        return order
    return within(order, matching(examples, filters))


def within(order: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """These rows in the order of all, `[n]`."""
    inside = np.zeros(len(order), bool)
    inside[rows] = True
    found: np.ndarray = order[inside[order]]
    return found


def decided_rows(rows: np.ndarray, made: Mapping[int, Decision], wanted: str) -> np.ndarray:
    """Those of the rows with a decision of one of the kinds DECIDED, in their order."""
    if wanted == ANY:
        return rows
    if wanted == UNDECIDED:
        keep = ~np.isin(rows, list(made))
    else:
        keep = np.isin(rows, [row for row, one in made.items() if one.verdict == wanted])
    found: np.ndarray = rows[keep]
    return found


def queue_rows(found: LabelSuspicion, rows: np.ndarray) -> np.ndarray:
    """The rows of a slice whose labels are to be reviewed, those that are flagged, and
    a few more where hardly any is; most suspicious first in each part."""
    ordered = within(found.order, rows)
    flagged = found.flagged[ordered]
    further = max(0, FEWEST_TO_REVIEW - int(flagged.sum()))
    return np.concatenate([ordered[flagged], ordered[~flagged][:further]])
