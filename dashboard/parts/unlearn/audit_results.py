"""The results of an audit: a verdict, quality against cost, and a table of all figures."""

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
from engine.store.quantities import ACCURACY, CORRELATION, KLOM
from engine.store.text import number

GOOD = ("good", "idle")
LOOKS = {method: place % STYLES for place, method in enumerate(["matching", *TITLES])}


def audit_view(audits: list[Audit], query: Query) -> None:
    """Show the audit in the URL.

    Args:
        audits: All audits of this set, oldest first; the chart shows their points too.
    """
    audit, method = query.audit, query.method
    assert audit is not None
    assert method is not None
    verdict = method_verdict(audit, method)
    kind = "good" if verdict.grade in GOOD else "part" if verdict.grade == "part" else "wrong"
    st.html(
        f'<div class="dl-grade" data-kind="{kind}" role="status"><b>{GRADES[verdict.grade]}.</b> '
        f"{escape(verdict.summary)} {escape(verdict.caution)}</div>"
    )
    with st.container(horizontal=True, vertical_alignment="top", key="audit_controls"):
        choice("Evaluated on", ON, query.part, "on", "forget")
        which_audit(audits, audit)
        which_method(audit, method)
    comparable = [
        one for one in audits if (one.models, one.direction) == (audit.models, audit.direction)
    ]
    left, right = st.columns([0.42, 0.58], gap="large")
    with left:
        st.html(_chart(comparable, audit, query.part))
    with right:
        _table(audit, method, query.part)


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
    """Choose the method shown in detail."""
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
    """HTML of the methods of all comparable audits, with the levels of doing nothing and floor."""
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
        f"KLoM of {half:,} models against {half:,} retrained ones, mean over examples with its "
        f"95% interval: lower is closer; {audit.ceiling:.1f} is the maximum. Floor: {half:,} "
        f"retrained models against {half:,} others. ✕: worse than before on kept or test examples."
    )
    return frontier(f"{ON[part]} examples: distance from retrained models", words, points, levels)


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
                *_accuracy(judged.accuracy),
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
            *_accuracy(accuracy),
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
            *([] if accuracy is None else ["Accuracy"]),
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
        f"{audit.budget:.1%}; {direction}. Membership: 2 · AUC − 1 of separating forgotten from "
        "test examples; ideally equal to that of the retrained models. Cost: share of a "
        "retraining, per model + once for all. In brackets: 95% intervals over models and "
        "examples. "
        f"With all {audit.models:,} models on each side, {title_of(method)} has KLoM "
        f"{KLOM.text(_judged(audit.of(method), part).klom.mean.mean)}."
    )
    if audit.correlation is not None and audit.error is not None:
        words += (
            f" Correlation of predicted changes of outputs with those of retrained models: "
            f"{CORRELATION.text(audit.correlation[part])} (error {number(audit.error[part])})."
        )
    aside(words)


def _accuracy(share: float | None) -> list[str]:
    """A cell of the table; none without right and wrong."""
    return [] if share is None else [ACCURACY.text(share)]


def _bracketed(found: Measured) -> str:
    return KLOM.interval(found)
