"""The quality badge: how the scores next to it were computed, and how good they are."""

from __future__ import annotations

from html import escape

import streamlit as st

from dashboard.location import QUALITY
from engine.store.quantities import LDS, SHARE, SLOPE
from engine.store.records import Badge

SOLVERS = {
    "dual-exact": "Exact gradients, solved in the dual (n × n)",
    "dual-wide": "Wide factorized gradient features, solved in the dual (n × n)",
    "primal": "Factorized gradient features, solved in the primal",
}


def quality_badge(badge: Badge) -> None:
    """Show the badge as one line; it opens the full badge with a link to Quality."""
    with st.popover(_line(badge), icon=_icon(badge), width="content", wrap=True):
        st.html(full_quality_badge(badge))
        link_to_quality()


def link_to_quality() -> None:
    """Show a link to Quality. It keeps the query, so that one step back returns here."""
    query = st.query_params.to_dict()
    words = "How far can these scores be trusted?"
    st.page_link(QUALITY, label=words, icon=":material/arrow_forward:", query_params=query)


def _line(badge: Badge) -> str:
    """The quality of the scores or, until it is measured, how they were computed."""
    parts = [badge.method]
    if badge.lds is None or badge.lds_low is None or badge.lds_high is None:
        if badge.checkpoints is not None:
            parts.append(f"{badge.checkpoints} checkpoint{'s' if badge.checkpoints != 1 else ''}")
        if badge.wanted:
            parts.append("indicative")
        if badge.runs is not None:
            parts.append(f"{badge.runs:,} subset runs")
        parts.append("quality not measured")
    else:
        if badge.lds_of:  # one line has no room for the interval as well
            parts.append(f"LDS of the {badge.lds_of} {LDS.text(badge.lds)}")
        else:
            parts.append(f"LDS {LDS.within(badge.lds, badge.lds_low, badge.lds_high)}")
        if badge.lds_low <= 0:
            parts.append("no better than chance")
        else:
            parts += [] if badge.calibrated else ["uncalibrated"]
    return " · ".join(parts)


def _icon(badge: Badge) -> str:
    if badge.lds is None or badge.lds_low is None:
        return ":material/info:"
    return ":material/verified_user:" if badge.lds_low > 0 else ":material/gpp_bad:"


def full_quality_badge(badge: Badge) -> str:
    """HTML of all fields of the badge."""
    quality = (
        "Not measured: this requires models trained on random subsets. Rely on the order more "
        "than on the numbers."
        if badge.lds is None or badge.lds_low is None or badge.lds_high is None
        else f"{LDS.within(badge.lds, badge.lds_low, badge.lds_high)}: rank correlation of "
        "predicted and actual outputs on held-out subset runs; 1 is perfect, 0 is chance."
    )
    if badge.lds is not None and badge.lds_of:
        quality += (
            f" Measured for the stored scores of the {badge.lds_of}; not for the output explained "
            "here."
        )
    output = badge.output.replace("-", " ")
    units = (
        f"Calibrated: removing a strong supporter lowers the {output} by its score times "
        f"{SLOPE.within(badge.slope, badge.slope_low, badge.slope_high)}, on average. "
        f"Between random subsets, scores explain {SHARE.text(badge.r_squared)} of the variance of "
        "held-out outcomes."
        if badge.slope is not None
        and badge.slope_low is not None
        and badge.slope_high is not None
        and badge.r_squared is not None
        else "Uncalibrated: compare scores of one prediction with each other, not with other "
        "predictions."
    )
    rows = {"Method": badge.method}
    if badge.solver is None:
        rows["Made"] = badge.reason
    else:
        rows["Solver"] = f"{SOLVERS.get(badge.solver, badge.solver)}. {badge.reason}"
    if badge.checkpoints is not None:
        more = f"; indicative, {badge.wanted:,} more needed" if badge.wanted else ""
        rows["Checkpoints"] = f"{badge.checkpoints:,}{more}"
    if badge.runs is not None:
        rows["Subset runs"] = f"{badge.runs:,} used to fit"
    if badge.solver is not None:
        exact = badge.features is None
        rows["Features"] = "Exact" if exact else f"{badge.features:,} per checkpoint"
        rows["Damping λ"] = f"{badge.damping:g} × mean diagonal"
        none = badge.soft_threshold == 0
        rows["Soft threshold"] = "None" if none else f"{badge.soft_threshold:g}"
    rows["Quality (LDS)"] = quality
    if badge.ceiling_text:
        rows["Noise ceiling"] = badge.ceiling_text[0].upper() + badge.ceiling_text[1:]
    rows |= {
        "Units": units,
        "Search": f"{badge.index.upper()} index, recall@{badge.recall_at} {badge.recall:.3f}",
    }
    entries = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows.items())
    return f'<dl class="dl-quality">{entries}</dl>'
