"""What was found in the data and the predictions: counted, with evidence, how far to trust it and
what to do next. Each finding is what one of the pages shows at length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from dashboard.location import BRITTLE, COMPARE, EXPLORE, TRAINING_SET, Location
from dashboard.names import short
from dashboard.read.comparisons import name_of
from dashboard.read.curation import curation
from dashboard.read.studies import Examples, badge, examples
from dashboard.read.supports import brittle, data_issues, supports
from dashboard.slice_parameters import MOST_PICKED, rows_text
from engine.applications.brittle.data_issues import SIMILAR, compares_inputs, training_copies
from engine.applications.brittle.supports import AT_MOST
from engine.applications.brittle.table import standing
from engine.applications.curation.poor_classes import worse_than_the_rest
from engine.applications.modeldiff.comparison import read_comparison
from engine.applications.modeldiff.significance import LEVEL
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.store.errors import DataloupeError
from engine.store.quantities import ACCURACY, ERROR, LDS, NET_INFLUENCE, P_VALUE
from engine.store.text import counted
from engine.study.calibration_advice import calibration_advice
from engine.study.capabilities import Capability, has
from engine.study.reader import StudyReader

FAR_OFF = 4.0
"""Errors this many robust standard deviations from the median are far off."""


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        title: What was counted, as the end of a sentence that starts with the count.
        count: None if it could not be counted; `evidence` then says what is missing.
        evidence: The strongest case.
        reliability: How far to trust the count, one sentence.
        action: Text of the link to what can be done; empty for none.
        page, parameters: Where it leads.
    """

    title: str
    count: int | None
    evidence: str
    reliability: str = ""
    action: str = ""
    page: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


Finder = Callable[[StudyReader, Location], Finding]


def found_by(finder: Finder, study: StudyReader, here: Location) -> Finding | None:
    """What one finder finds, or what it lacks; None if it does not apply to the task."""
    if not _applies(finder, study, here):
        return None
    try:
        return finder(study, here)
    except DataloupeError as error:
        return Finding(TITLES[finder], None, str(error))


def _applies(finder: Finder, study: StudyReader, here: Location) -> bool:
    if finder is poor_classes and "error" in examples(study, "test", here.algorithm).numbers:
        return True
    needed: dict[Finder, Capability] = {
        suspect_labels: "classes",
        poor_classes: "classes",
        brittle_predictions: "outcomes",
    }
    return finder not in needed or has(study, needed[finder])


def suspect_labels(study: StudyReader, here: Location) -> Finding:
    """Training labels that look wrong to the models."""
    title = TITLES[suspect_labels]
    found = curation(study, here.algorithm, here.method).suspicion
    if found is None:
        return Finding(title, None, "The models have not predicted the examples yet.")
    training = examples(study, "train", here.algorithm)
    row = training.table.iloc[int(found.order[0])]
    (other,) = found.suggested(found.order[:1])
    excess = found.excess
    beyond = "more than" if excess.beyond_chance else "no more than"
    return Finding(
        title,
        excess.flagged,
        f"Most suspect: {short(row['id'])}, labeled {short(row['label'])}, looks like "
        f"{short(other)}.",
        f"{beyond.capitalize()} chance explains: {counted(round(excess.expected), 'label')} would "
        "look so wrong if all were right.",
        "Review the labels",
        TRAINING_SET,
        {"view": "review"},
    )


def copies(study: StudyReader, here: Location) -> Finding:
    """Training examples whose input another one has."""
    title = TITLES[copies]
    if not compares_inputs(study):
        return Finding(title, None, f"Not looked for among {study.dataset.n_train:,} examples.")
    exact, nearly = _copies(here.algorithm, stamps_of(_data_files(study, here)), study)
    rows = np.flatnonzero(exact | nearly)[:MOST_PICKED]
    return Finding(
        title,
        int(exact.sum() + nearly.sum()),
        f"{int(exact.sum()):,} exactly, {int(nearly.sum()):,} nearly.",
        f"Exact copies are certain; near ones have pixels that correlate by {SIMILAR:g} or more."
        if has(study, "pictures")
        else "Copies have exactly the same input.",
        "Show them" if len(rows) else "",
        TRAINING_SET,
        {"selected_train": rows_text(rows)} if len(rows) else {},
    )


def _data_files(study: StudyReader, here: Location) -> list[Path]:
    return [layout.dataset_file(study.root), layout.similarity_file(study.root, here.algorithm)]


@st.cache_resource(max_entries=4, show_spinner="Looking for copies…")
def _copies(algorithm: str, stamps: Stamps, _study: StudyReader) -> tuple[np.ndarray, np.ndarray]:
    return training_copies(_study, algorithm)


def leaks(study: StudyReader, here: Location) -> Finding:
    """Test examples that are also in the training data."""
    title = TITLES[leaks]
    if not compares_inputs(study):
        return Finding(title, None, f"Not looked for among {study.dataset.n_train:,} examples.")
    if here.method is None:
        return Finding(title, None, "The scores are not computed yet.")
    issues = data_issues(study, here.algorithm, here.method)
    leak, near = issues["leak"], issues["near-copy"]
    rows = np.flatnonzero(leak | near)[:MOST_PICKED]
    return Finding(
        title,
        int(leak.sum() + near.sum()),
        f"{int(leak.sum()):,} exactly, {int(near.sum()):,} nearly.",
        "Predictions of them do not test the model.",
        "Show them" if len(rows) else "",
        EXPLORE,
        {"only": rows_text(rows)} if len(rows) else {},
    )


def brittle_predictions(study: StudyReader, here: Location) -> Finding:
    """Predictions that flip without a few training examples."""
    title = f"predictions flip without at most {AT_MOST} training examples"
    if here.method is None:
        return Finding(title, None, "The scores are not computed yet.")
    # Where the badge tells, what every model answers is not read.
    if (
        badge(study, here.algorithm, here.method).slope is None
        or not (found := supports(study, here.algorithm, here.method, AT_MOST)).calibrated
    ):
        return Finding(title, None, calibration_advice(study, here.algorithm, here.method))
    states = standing(brittle(study, found)[0])
    proved, refuted = states["verified"], states["refuted"]
    tried = proved + refuted
    evidence = "None is predicted to flip."
    if len(found.ranked):
        row = int(found.ranked[0])
        name = short(examples(study, "test", here.algorithm).ids[row])
        evidence = f"Most brittle: {name}, without {counted(int(found.size[row]), 'example')}."
    return Finding(
        title,
        len(found.ranked) - refuted,
        evidence,
        f"Retraining confirmed {proved:,} of {tried:,} tried."
        if tried
        else f"Predicted at a probability of {found.probability:.0%} or more; none retrained yet.",
        "Verify them" if len(found.ranked) else "",
        BRITTLE,
    )


def harmful(study: StudyReader, here: Location) -> Finding:
    """Training examples that hurt test predictions more than they help."""
    title = TITLES[harmful]
    if here.method is None:
        return Finding(title, None, "The scores are not computed yet.")
    columns = curation(study, here.algorithm, here.method)
    net = columns.values["harm"]
    worst = int(columns.orders["harm"][0])
    name = short(examples(study, "train", here.algorithm).ids[worst])
    trust = badge(study, here.algorithm, here.method)
    quality = "Quality of the scores not measured."
    if trust.lds is not None and trust.lds_low is not None and trust.lds_high is not None:
        quality = f"By {trust.method}, LDS {LDS.within(trust.lds, trust.lds_low, trust.lds_high)}."
        if trust.lds_low <= 0:
            quality = f"By {trust.method}, which is no better than chance."
    return Finding(
        title,
        int((net < 0).sum()),
        f"Most harmful: {name}, {NET_INFLUENCE.text(net[worst])} over all test predictions, "
        f"{columns.unit}.",
        quality,
        "Most harmful first",
        TRAINING_SET,
        {"sort": "harm"},
    )


def poor_classes(study: StudyReader, here: Location) -> Finding:
    """Classes that are predicted worse than the others, or predictions that are far off."""
    tests = examples(study, "test", here.algorithm)
    if "error" in tests.numbers:
        return _far_off(tests.numbers["error"], tests.ids.to_numpy())
    title = TITLES[poor_classes]
    if not tests.has_outcomes:
        return Finding(title, None, "The models have not predicted the examples yet.")
    right, labels = tests.outcome_mask(), tests.codes["label"]
    number = np.bincount(labels, minlength=len(tests.classes))
    recall = np.bincount(labels[right], minlength=len(tests.classes)) / np.maximum(number, 1)
    files = [
        layout.dataset_file(study.root),
        layout.predictions_file(study.root, here.algorithm, "test"),
    ]
    poor = np.flatnonzero(_p_values(here.algorithm, stamps_of(files), tests) < LEVEL)
    poor = poor[np.argsort(recall[poor])]
    shown = ", ".join(
        f"{short(tests.classes[one])} {ACCURACY.text(recall[one])} of {number[one]:,}"
        for one in poor[:3]
    )
    action, parameters = "", {}
    if len(poor):
        name = tests.classes[poor[0]]
        action = f"Mistakes of {short(name)}"
        parameters = {"label": name, "result": "wrong"}
    return Finding(
        title,
        len(poor),
        f"{shown} right." if shown else "None is.",
        f"Beyond chance: p < {LEVEL:g}, corrected for all classes. "
        f"{ACCURACY.text(float(right.mean()))} of all are right.",
        action,
        EXPLORE,
        parameters,
    )


@st.cache_resource(max_entries=4, show_spinner=False)
def _p_values(algorithm: str, stamps: Stamps, _tests: Examples) -> np.ndarray:
    """Of each class, that it is predicted worse than the others."""
    return worse_than_the_rest(_tests.outcome_mask(), _tests.codes["label"], len(_tests.classes))


def _far_off(errors: np.ndarray, ids: np.ndarray) -> Finding:
    off = np.abs(errors - np.median(errors))
    spread = 1.4826 * float(np.median(off))
    worst = int(np.abs(errors).argmax())
    return Finding(
        "predictions are far off",
        int((off > FAR_OFF * spread).sum()),
        f"Largest error: {short(ids[worst])}, {ERROR.text(errors[worst])}.",
        f"More than {FAR_OFF:g} robust standard deviations from the usual error.",
        "Largest errors first",
        EXPLORE,
        {"sort": "error"},
    )


def differences(study: StudyReader, here: Location) -> Finding:
    """Directions in which two learning algorithms rely on different training data."""
    title = TITLES[differences]
    algorithms = [*study.spec.algorithms, *study.uploads]
    files = layout.comparison_files(study.root)
    if not files:
        lacking = (
            "No two learning algorithms were compared yet."
            if len(algorithms) > 1
            else "This study has one learning algorithm. Add another to study.toml, or upload a "
            "checkpoint on Compare."
        )
        return Finding(title, None, lacking, action="Open Compare", page=COMPARE)
    count, best = 0, None
    for content in _comparisons(stamps_of(files), study):
        pair = [content[key] for key in ("a", "b")]
        if not all(one["algorithm"] in algorithms for one in pair):
            continue
        for key in ("a", "b"):
            for place, one in enumerate(content["directions"][key]):
                if one["p"] is not None and one["p"] < LEVEL:
                    count += 1
                    if best is None or one["p"] < best[0]:
                        best = one["p"], key, place, pair
    if best is None:
        return Finding(
            title,
            0,
            f"{counted(len(files), 'comparison')}: none is beyond chance.",
            action="Open Compare",
            page=COMPARE,
        )
    p, key, place, pair = best
    a, b = (name_of(study, one["algorithm"]) for one in pair)
    parameters = {"a": pair[0]["algorithm"], "b": pair[1]["algorithm"], "side": key}
    parameters |= {f"by_{name}": one["method"] for name, one in zip("ab", pair, strict=True)}
    return Finding(
        title,
        count,
        f"Strongest: direction {place + 1} of {short(a if key == 'a' else b)}, between {short(a)} "
        f"and {short(b)}.",
        f"p = {P_VALUE.text(p)}, corrected for all directions.",
        "Open the direction",
        COMPARE,
        parameters | {"direction": str(place + 1)},
    )


@st.cache_resource(max_entries=2, show_spinner=False)
def _comparisons(stamps: Stamps, _study: StudyReader) -> list[dict[str, Any]]:
    return [read_comparison(_study, path.stem) for path in layout.comparison_files(_study.root)]


TITLES: dict[Finder, str] = {
    suspect_labels: "training labels look wrong",
    harmful: "training examples hurt more than they help",
    brittle_predictions: "brittle predictions",
    poor_classes: "classes are predicted worse than the rest",
    leaks: "test examples are also in the training data",
    copies: "training examples are copies of another",
    differences: "directions tell two learning algorithms apart",
}
"""What is looked for, in the order shown."""
