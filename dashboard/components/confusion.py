"""The confusion matrix as a table of links: each cell opens the test examples it counts.

A table, and not a chart: it can be walked with the keyboard, read aloud and opened in a new tab.
Where there are too many classes for a table, the most frequent confusions are listed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import streamlit as st

from dashboard.location import Location

MOST_CLASSES = 24
MOST_PAIRS = 24
_HERE = Path(__file__).parent


def confusion(
    classes: list[str],
    table: pd.DataFrame,
    location: Location,
    on_open: Callable[[str, str], None],
) -> None:
    """Show how often each class is predicted as which; `on_open(label, predicted)` on a click.

    Args:
        table: With `label` and `predicted`.
    """
    counts = confusion_counts(classes, table)

    def cell(label: int, predicted: int) -> dict[str, Any]:
        names = {"label": classes[label], "predicted": classes[predicted]}
        return {
            "label": label,
            "predicted": predicted,
            "count": int(counts[label, predicted]),
            "href": "explore?" + urlencode(location.parameters(**names)),
        }

    every = range(len(classes))
    data: dict[str, Any] = {"classes": classes}
    if len(classes) <= MOST_CLASSES:
        data["rows"] = [[cell(label, predicted) for predicted in every] for label in every]
        data["most"] = max(1, int(counts.max(initial=0)))
        wrong = counts - np.diag(np.diag(counts))
        data["mostWrong"] = max(1, int(wrong.max(initial=0)))
    else:
        data["pairs"] = [cell(*pair) for pair in most_confused(counts)[:MOST_PAIRS]]

    def opened() -> None:
        chosen = st.session_state["confusion"].opened
        if chosen is not None:
            on_open(classes[int(chosen["label"])], classes[int(chosen["predicted"])])

    _component()(key="confusion", data=data, on_opened_change=opened)


def confusion_counts(classes: list[str], table: pd.DataFrame) -> np.ndarray:
    """Examples of each true class (row) predicted as each class (column)."""
    places = pd.Index(classes)
    label, predicted = (
        places.get_indexer(pd.Index(table[name])) for name in ("label", "predicted")
    )
    counts = np.bincount(label * len(classes) + predicted, minlength=len(classes) ** 2)
    return counts.reshape(len(classes), len(classes))


def most_confused(counts: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (true class, another predicted in its place) that happen, most frequent first."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[: int(np.count_nonzero(wrong))]
    return [divmod(int(place), len(counts)) for place in order]


def _component() -> Any:
    return st.components.v2.component(
        "dataloupe_confusion",
        html='<div class="confusion"></div>\n',
        css=(_HERE / "confusion.css").read_text(encoding="utf-8"),
        js=(_HERE / "confusion.js").read_text(encoding="utf-8"),
    )
