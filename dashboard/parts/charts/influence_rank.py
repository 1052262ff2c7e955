"""The total influence of one training example, and its rank within its class or among all."""

from __future__ import annotations

from html import escape

import numpy as np
import streamlit as st

from dashboard.parts.charts.histogram import Series, histogram
from dashboard.read.studies import Examples, Weights
from engine.store.quantities import SHARE, TOTAL_INFLUENCE

BINS = 24


def influence_rank(row: int, training: Examples, weights: Weights, n_test: int, kind: str) -> None:
    """Show the total influence of one training example and its rank within its class.

    Args:
        weights: Of all training examples.
    """
    label = str(training.table["label"].iloc[row])
    plus, minus = float(weights.support[row]), float(weights.oppose[row])
    codes = training.codes.get("label")
    group = "" if codes is None else label
    weight = float(weights.total[row])
    members = weights.total if codes is None else weights.total[codes == codes[row]]
    share = 100 * plus / (plus - minus) if plus > minus else 50.0
    good, bad = training.effects
    short = escape(group if len(group) <= 60 else group[:59] + "…")
    words = f"{SHARE.text(share / 100)} of its influence {good.present}"
    bar = (
        f'<div class="dl-balance" role="img" aria-label="{words}">'
        f'<i data-sign="support" style="width:{share:.1f}%"></i>'
        f'<i data-sign="oppose" style="width:{100 - share:.1f}%"></i></div>'
        f'<div class="dl-balance-words"><span>{TOTAL_INFLUENCE.text(plus)} {good.participle}</span>'
        f"<span>{TOTAL_INFLUENCE.text(-minus)} {bad.participle}</span></div>"
    )
    st.html(
        f'<section class="dl-standing"><h2>Over all {n_test:,} test predictions</h2>{bar}'
        f"<p>{rank_words(weight, members, short, kind)}</p>"
        f"<p>Sums of its influences, {weights.unit}.</p>"
        f"{_shape(weight, members, group)}</section>"
    )


def rank_words(weight: float, members: np.ndarray, label: str, kind: str) -> str:
    """The rank of `weight` among the weights of its class as HTML; `members` includes it.

    Args:
        label: The class; empty where members are all training examples.
    """
    others, of = len(members) - 1, f" labeled “{label}”" if label else ""
    if others < 1:
        return f"It is the only training {kind}{of}."
    lighter = int((members < weight).sum())
    words = f"More influence than <b>{lighter:,} of the {others:,}</b> other training {kind}s"
    return f"{words}{of}."


def _shape(weight: float, members: np.ndarray, label: str) -> str:
    """Histogram of these weights, on a log axis as they span orders of magnitude."""
    positive = members[members > 0]
    if len(positive) < 2 or weight <= 0 or positive.min() == positive.max():
        return ""
    edges = np.geomspace(positive.min(), positive.max(), BINS + 1)
    ends = (
        TOTAL_INFLUENCE.text(edges[0]),
        "sum of |influence|, log scale",
        TOTAL_INFLUENCE.text(edges[-1]),
    )
    name = label if len(label) <= 24 else label[:23] + "…"
    return histogram(
        "Influence in its class" if label else "Influence of all training examples",
        "The marked bar contains this example.",
        [Series(name or "training examples", positive)],
        edges,
        ends,
        weight,
    )
