"""The trust badge: how the scores beside it were made and how good they are."""

from __future__ import annotations

from html import escape

import streamlit as st

from engine.study import Badge

ROADS = {
    "dual-exact": "Exact gradients, solved in the dual (n × n)",
    "dual-wide": "Wide factorised gradient features, solved in the dual (n × n)",
    "primal": "Factorised gradient features, solved in the primal",
}


def trust_badge(badge: Badge) -> None:
    """A button with the badge in one line, which opens it in full."""
    checkpoints = f"{badge.checkpoints} checkpoint{'s' if badge.checkpoints != 1 else ''}"
    quality = "quality not measured" if badge.lds is None else f"LDS {badge.lds:.2f}"
    with st.popover(
        f"{badge.method} · {checkpoints} · {quality}",
        icon=":material/verified_user:" if badge.lds is not None else ":material/info:",
        width="content",
    ):
        st.html(trust_in_full(badge))


def trust_in_full(badge: Badge) -> str:
    """Everything the badge knows, as HTML."""
    width = "Exact" if badge.features is None else f"{badge.features:,} per checkpoint"
    threshold = "None" if badge.soft_threshold == 0 else f"{badge.soft_threshold:g}"
    quality = (
        "Not measured: it takes models trained on random subsets. Trust the order, less the "
        "numbers."
        if badge.lds is None
        else f"{badge.lds:.3f}: rank correlation of predicted and actual outputs on held-out "
        "subset runs; 1 is perfect, 0 is chance."
    )
    units = (
        "Calibrated: a score is a change of the margin."
        if badge.calibrated
        else "Uncalibrated: compare scores of one prediction with each other, not with other "
        "predictions."
    )
    rows = {
        "Method": badge.method,
        "Road": f"{ROADS.get(badge.road, badge.road)}. {badge.reason}",
        "Checkpoints": f"{badge.checkpoints:,}",
        "Features": width,
        "Damping λ": f"{badge.damping:g} × mean diagonal",
        "Soft threshold": threshold,
        "Quality (LDS)": quality,
        "Units": units,
        "Search": f"{badge.index.upper()} index, recall@{badge.recall_at} {badge.recall:.3f}",
    }
    entries = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows.items())
    return f'<dl class="dl-trust">{entries}</dl>'
