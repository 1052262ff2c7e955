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
    parts = [badge.method]
    if badge.checkpoints is not None:
        parts.append(f"{badge.checkpoints} checkpoint{'s' if badge.checkpoints != 1 else ''}")
    if badge.runs is not None:
        parts.append(f"{badge.runs:,} subset runs")
    parts.append("quality not measured" if badge.lds is None else f"LDS {badge.lds:.2f}")
    with st.popover(
        " · ".join(parts),
        icon=":material/verified_user:" if badge.lds is not None else ":material/info:",
        width="content",
    ):
        st.html(trust_in_full(badge))


def trust_in_full(badge: Badge) -> str:
    """Everything the badge knows, as HTML."""
    quality = (
        "Not measured: it takes models trained on random subsets. Trust the order, less the "
        "numbers."
        if badge.lds is None
        else f"{badge.lds:.3f} ({badge.lds_low:.3f} to {badge.lds_high:.3f}): rank correlation of "
        "predicted and actual outputs on held-out subset runs; 1 is perfect, 0 is chance."
    )
    units = (
        f"Calibrated: times {badge.slope:.3g}, a score is a change of the margin."
        if badge.slope is not None
        else "Uncalibrated: compare scores of one prediction with each other, not with other "
        "predictions."
    )
    rows = {"Method": badge.method}
    if badge.road is None:
        rows["Made"] = badge.reason
    else:
        rows["Road"] = f"{ROADS.get(badge.road, badge.road)}. {badge.reason}"
    if badge.checkpoints is not None:
        rows["Checkpoints"] = f"{badge.checkpoints:,}"
    if badge.runs is not None:
        rows["Subset runs"] = f"{badge.runs:,} that it was fitted on"
    if badge.road is not None:
        exact = badge.features is None
        rows["Features"] = "Exact" if exact else f"{badge.features:,} per checkpoint"
        rows["Damping λ"] = f"{badge.damping:g} × mean diagonal"
        none = badge.soft_threshold == 0
        rows["Soft threshold"] = "None" if none else f"{badge.soft_threshold:g}"
    rows |= {
        "Quality (LDS)": quality,
        "Units": units,
        "Search": f"{badge.index.upper()} index, recall@{badge.recall_at} {badge.recall:.3f}",
    }
    entries = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows.items())
    return f'<dl class="dl-trust">{entries}</dl>'
