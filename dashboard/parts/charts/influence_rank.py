"""How much one training example matters: over all predictions, and among those of its class."""

from __future__ import annotations

from html import escape

import numpy as np
import streamlit as st

from dashboard.parts.charts.histogram import Series, histogram
from dashboard.parts.gallery.cards import signed
from dashboard.read.studies import Examples, Weights

BINS = 24


def influence_rank(row: int, training: Examples, weights: Weights, n_test: int, kind: str) -> None:
    """Show the sums of one training example's influence and where they stand in its class.

    Args:
        weights: Of all training examples.
    """
    label = str(training.table["label"].iloc[row])
    plus, minus = float(weights.support[row]), float(weights.oppose[row])
    codes = training.codes["label"]
    weight, members = float(weights.total[row]), weights.total[codes == codes[row]]
    share = 100 * plus / (plus - minus) if plus > minus else 50.0
    largest = max(plus, -minus)
    short = escape(label if len(label) <= 60 else label[:59] + "…")
    bar = (
        f'<div class="dl-balance" role="img" aria-label="{share:.0f} % of it helps">'
        f'<i data-sign="support" style="width:{share:.1f}%"></i>'
        f'<i data-sign="oppose" style="width:{100 - share:.1f}%"></i></div>'
        f'<div class="dl-balance-words"><span>{signed(plus, largest)} helping</span>'
        f"<span>{signed(minus, largest)} hurting</span></div>"
    )
    st.html(
        f'<section class="dl-standing"><h2>Over all {n_test:,} test predictions</h2>{bar}'
        f"<p>{rank_words(weight, members, short, kind)}</p>"
        f"{_shape(weight, members, label)}</section>"
    )


def rank_words(weight: float, members: np.ndarray, label: str, kind: str) -> str:
    """Where `weight` stands among the weights of its class, itself included."""
    others = len(members) - 1
    if others < 1:
        return f"It is the only training {kind} labelled “{label}”."
    lighter = int((members < weight).sum())
    words = f"More influence than <b>{lighter:,} of the {others:,}</b> other training {kind}s"
    return f"{words} labelled “{label}”."


def _shape(weight: float, members: np.ndarray, label: str) -> str:
    """The class's weights on a logarithmic axis, as they spread over orders of magnitude."""
    positive = members[members > 0]
    if len(positive) < 2 or weight <= 0 or positive.min() == positive.max():
        return ""
    edges = np.geomspace(positive.min(), positive.max(), BINS + 1)
    ends = (f"{edges[0]:.2g}", "sum of |influence|, logarithmic", f"{edges[-1]:.2g}")
    name = label if len(label) <= 24 else label[:23] + "…"
    return histogram(
        "Influence in its class",
        "The marked column holds this one.",
        [Series(name, positive)],
        edges,
        ends,
        weight,
    )
