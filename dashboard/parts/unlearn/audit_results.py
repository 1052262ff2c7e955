"""An audit to read: a plain sentence, quality against cost, and all figures in a table."""

from __future__ import annotations

from html import escape

import streamlit as st

from dashboard.location import keep
from dashboard.parts.charts.quality_cost_chart import STYLES, Level, Point, frontier
from dashboard.parts.controls.segmented_choice import choice
from dashboard.parts.layout.blocks import aside, table
from dashboard.read.audits import ON, Query, title_of
from engine.applications.unlearning.audit_record import PARTS, Audit, Judged, MethodAudit
from engine.applications.unlearning.method_verdict import GRADES, harms, method_verdict
from engine.applications.unlearning.settings import TITLES, UNCHANGED
from engine.attribution.evaluation.quality import Measured
from engine.store.text import number

GOOD = ("good", "idle")
LOOKS = {method: place % STYLES for place, method in enumerate(["matching", *TITLES])}


def audit_view(audits: list[Audit], asked: Query) -> None:
    """Show the audit that the address names.

    Args:
        audits: All of this set, oldest first: their points stand in the chart, too.
    """
    audit, method = asked.audit, asked.method
    assert audit is not None
    assert method is not None
    said = method_verdict(audit, method)
    kind = "good" if said.grade in GOOD else "part" if said.grade == "part" else "wrong"
    st.html(
        f'<div class="dl-grade" data-kind="{kind}" role="status"><b>{GRADES[said.grade]}.</b> '
        f"{escape(said.summary)} {escape(said.caution)}</div>"
    )
    with st.container(horizontal=True, vertical_alignment="top", key="audit_controls"):
        choice("Judged on", ON, asked.part, "on", "forget")
        which_audit(audits, audit)
        which_method(audit, method)
    like = [one for one in audits if (one.models, one.direction) == (audit.models, audit.direction)]
    left, right = st.columns([0.42, 0.58], gap="large")
    with left:
        st.html(_chart(like, audit, asked.part))
    with right:
        _table(audit, method, asked.part)


def which_audit(audits: list[Audit], audit: Audit) -> None:
    """Choose among the audits of a set."""
    if len(audits) < 2:
        return
    named = {one.id: one for one in reversed(audits)}
    st.session_state["audit"] = audit.id
    st.selectbox(
        "Audit",
        list(named),
        format_func=lambda id_: _words(named[id_]),
        key="audit",
        on_change=keep,
        args=("audit", audits[-1].id, ("unlearned_by",)),
        width=360,
    )


def which_method(audit: Audit, method: str) -> None:
    """Choose the method that is read closely."""
    st.session_state["unlearned_by"] = method
    st.selectbox(
        "Method",
        [one.method for one in audit.methods],
        format_func=title_of,
        key="unlearned_by",
        on_change=keep,
        args=("unlearned_by",),
        width=220,
    )


def _words(audit: Audit) -> str:
    when = audit.created[:16].replace("T", " ")
    return f"{audit.budget:.1%} budget, {audit.models:,} models, {when}"


def _chart(audits: list[Audit], audit: Audit, part: str) -> str:
    """Methods of all comparable audits, between doing nothing and the floor."""
    points = [
        Point(_marked(other, one), one.cost_share, _half(one, part), LOOKS[one.method], mine)
        for other in audits
        for one in other.methods
        if one.method != UNCHANGED and one.cost_share > 0
        for mine in [other.id == audit.id]
    ]
    levels = [
        Level("Doing nothing", _half(audit.of(UNCHANGED), part), "nothing"),
        Level("Floor", _floor(audit, part), "floor"),
    ]
    half = audit.models // 2
    words = (
        f"KLoM of {half:,} models against {half:,} retrained ones, mean over the examples with its "
        f"95 % interval: lower is nearer, {audit.ceiling:.1f} the most. Floor: {half:,} retrained "
        "models against as many others. ✕: worse than before on what is kept or on test examples."
    )
    return frontier(f"{ON[part]} examples: how far from retrained models", words, points, levels)


def _marked(audit: Audit, one: MethodAudit) -> str:
    harmful = any(harms(audit, one, part) for part in PARTS if part != "forget")
    return f"{title_of(one.method)}{' ✕' if harmful else ''}"


def _judged(one: MethodAudit, part: str) -> Judged:
    found: Judged = getattr(one, part)
    return found


def _half(one: MethodAudit, part: str) -> Measured:
    return _judged(one, part).at_half.mean


def _floor(audit: Audit, part: str) -> Measured:
    found: Measured = {str(name): klom for name, klom in audit.floor.items()}[part].mean
    return found


def _table(audit: Audit, method: str, part: str) -> None:
    floor = {str(name): klom for name, klom in audit.floor.items()}[part]
    rows = []
    for one in audit.methods:
        judged = _judged(one, part)
        rows.append(
            [
                _marked(audit, one),
                _bracketed(judged.at_half.mean),
                _bracketed(judged.at_half.p95),
                f"{judged.accuracy:.1%}",
                number(one.membership),
                f"{one.cost_share:.1%}" + (f" + {one.once_share:.0%}" if one.once_share else ""),
            ]
        )
    accuracy = _judged(audit.methods[0], part).oracle_accuracy
    rows.append(
        [
            "Retrained (floor)",
            _bracketed(floor.mean),
            _bracketed(floor.p95),
            f"{accuracy:.1%}",
            number(audit.membership),
            "100.0%",
        ]
    )
    table(
        f"Audit on {ON[part].lower()} examples",
        (
            "Method",
            "KLoM, mean",
            "KLoM, P95",
            "Accuracy",
            "Membership",
            "Cost",
        ),
        rows,
    )
    direction = {"unlearned-oracle": "KL(unlearned ‖ retrained)"}.get(
        audit.direction, "KL(retrained ‖ unlearned)"
    )
    words = (
        f"N = {audit.models:,} unlearned and {audit.models:,} retrained models, budget "
        f"{audit.budget:.1%}; {direction}. Membership: 2 · AUC − 1 of telling forgotten from test "
        "examples; at best that of the retrained. Cost: of a retraining, for a model + once for "
        "all. Brackets: 95 % intervals over examples. "
        f"With all {audit.models:,} models on either side {title_of(method)} has KLoM "
        f"{number(_judged(audit.of(method), part).klom.mean.mean)}."
    )
    if audit.correlation is not None and audit.error is not None:
        words += (
            f" Predicted changes of the logits and those of retrained models correlate by "
            f"{number(audit.correlation[part])} (error {number(audit.error[part])})."
        )
    aside(words)


def _bracketed(found: Measured) -> str:
    return f"{number(found.mean)} [{number(found.low)}, {number(found.high)}]"
