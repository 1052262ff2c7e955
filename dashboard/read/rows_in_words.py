"""Some rows of a split: which labels they have, and which of them are the worst mistakes."""

from __future__ import annotations

import numpy as np

from dashboard.read.studies import Examples


def mistakes_first(examples: Examples) -> np.ndarray:
    """Rows of the wrong predictions, the most confident first or, where predictions have no
    confidence, those with the lowest output."""
    wrong = np.flatnonzero(~examples.outcome_mask())
    if "confidence" in examples.table:
        keys = -examples.table["confidence"].to_numpy(np.float64)[wrong]
    else:
        keys = examples.numbers["output"][wrong]
    return wrong[np.argsort(keys, kind="stable")]


def makeup(examples: Examples, rows: np.ndarray, most: int = 3) -> list[tuple[str, int]]:
    """(label, count) in these rows, most frequent first; those after `most` are summed.

    Empty where labels are no classes.
    """
    if not examples.classes:
        return []
    found = examples.table["label"].iloc[rows].value_counts()
    named = [(str(label), int(number)) for label, number in found.iloc[:most].items()]
    others = int(found.iloc[most:].sum())
    return [*named, ("others", others)] if others else named


def share(examples: Examples, rows: np.ndarray, label: str) -> str:
    """Number of these rows with the label as text: `7 of 10`."""
    if "label" in examples.members and label in examples.classes:
        having = examples.members["label"][rows, examples.classes.index(label)]
    else:
        having = (examples.table["label"].iloc[rows] == label).to_numpy()
    return f"{having.sum()} of {len(rows)}"


def having(examples: Examples, rows: np.ndarray, label: str, words: str) -> str:
    """How many of these rows have a label, as a sentence; empty if there are no rows or no classes.

    Args:
        words: The end of the sentence: `have this label`.
    """
    if not len(rows) or not examples.classes:
        return ""
    return f" {share(examples, rows, label)} {words}."
