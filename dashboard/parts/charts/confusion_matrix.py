"""The confusion matrix as a table of links: each cell opens the test examples it counts.

It is a table, not a chart, so that it works with the keyboard, screen readers and new tabs. With
too many classes for a table, it lists the most frequent confusions, of all classes or of a chosen
one, and the classes with the most errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import streamlit as st

from dashboard.location import Location
from dashboard.parts.controls.slice_filters import with_count
from dashboard.read.studies import Examples, mix_ups
from engine.store.quantities import ACCURACY, SHARE

MOST_CLASSES = 24
MOST_LISTED = 24
_HERE = Path(__file__).parent


def confusion(
    examples: Examples, location: Location, on_open: Callable[[dict[str, str]], None]
) -> None:
    """Show the confusion matrix.

    Args:
        examples: With predictions.
        on_open: Called with the filters of a clicked cell, in the form of the URL.
    """
    classes = examples.classes
    of = np.bincount(examples.codes["label"], minlength=len(classes))
    cells: list[dict[str, str]] = []

    def cell(words: str, count: int, hint: str, **filters: str) -> dict[str, Any]:
        """Text and target of a link; its index in `cells` identifies the clicked one."""
        cells.append(filters)
        href = "test-set?" + urlencode(location.parameters(**filters))
        return {"words": words, "count": count, "hint": hint, "href": href, "cell": len(cells) - 1}

    def pair(label: int, predicted: int, count: int) -> dict[str, Any]:
        if not count:
            return {"count": 0}
        names = classes[label], classes[predicted]
        hint = f"{count:,} of class {names[0]} predicted as {names[1]}"
        words = " → ".join(names)
        found = cell(words, count, hint, label=names[0], predicted=names[1])
        share = count / int(of[label])
        return found | {"share": share, "shown": SHARE.text(share)}

    def recall(right: int, of: int) -> dict[str, Any]:
        return {"shown": ACCURACY.text(right / of) if of else "–", "of": f"{of:,}"}

    def mistaken(label: int, wrong: int, of: int) -> dict[str, Any]:
        hint = f"{wrong:,} of {of:,} of class {classes[label]} predicted wrongly"
        words = with_count(classes[label], wrong, of)
        return cell(words, wrong, hint, label=classes[label], result="wrong")

    data: dict[str, Any]
    if len(classes) <= MOST_CLASSES:
        counts = confusion_counts(examples)
        every = range(len(classes))
        data = {
            "classes": classes,
            "rows": [[pair(a, b, int(counts[a, b])) for b in every] for a in every],
            "recall": [recall(int(counts[a, a]), int(of[a])) for a in every],
        }
    else:
        found = mix_ups(examples, {})
        chosen = _class(classes)
        if chosen is not None:
            found = found[(found[:, :2] == chosen).any(axis=1)]
        listed = [pair(*one) for one in found[:MOST_LISTED].tolist()]
        data = {"lists": [_list("Most frequent confusions", listed, len(found))]}
        if chosen is None:
            hardest = most_mistaken(examples)
            listed = [mistaken(*one) for one in hardest[:MOST_LISTED]]
            data["lists"].append(_list("Classes with the most errors", listed, len(hardest)))

    def opened() -> None:
        place = st.session_state["confusion"].opened
        if place is not None and 0 <= int(place) < len(cells):
            on_open(cells[int(place)])

    _component()(key="confusion", data=data, on_opened_change=opened)


def _list(name: str, listed: list[dict[str, Any]], of: int) -> dict[str, Any]:
    return {"title": f"{name} ({len(listed):,} / {of:,})", "cells": listed}


def _class(classes: Sequence[str]) -> int | None:
    """Choose a class to list confusions of; None for all classes."""
    chosen = st.selectbox(
        "Confusions of one class",
        range(len(classes)),
        index=None,
        format_func=classes.__getitem__,
        placeholder="All classes",
        key="confused",
        width=320,
    )
    return None if chosen is None else int(chosen)


def confusion_counts(examples: Examples) -> np.ndarray:
    """Examples of each true class (row) predicted as each class (column), int64."""
    n = len(examples.classes)
    cells = examples.codes["label"] * n + examples.codes["predicted"]
    return np.bincount(cells, minlength=n * n).reshape(n, n)


def most_mistaken(examples: Examples) -> list[tuple[int, int, int]]:
    """(class, number predicted wrongly, number of examples), largest share first."""
    n = len(examples.classes)
    label = examples.codes["label"]
    of = np.bincount(label, minlength=n)
    wrong = np.bincount(label[label != examples.codes["predicted"]], minlength=n)
    share = wrong / np.maximum(of, 1)
    order = np.lexsort((-wrong, -share))
    return [(int(place), int(wrong[place]), int(of[place])) for place in order if wrong[place]]


def _component() -> Any:
    return st.components.v2.component(
        "dataloupe_confusion",
        html='<div class="confusion"></div>\n',
        css=(_HERE / "confusion_matrix.css").read_text(encoding="utf-8"),
        js=(_HERE / "confusion_matrix.js").read_text(encoding="utf-8"),
    )
