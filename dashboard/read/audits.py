"""The URL parameters of Unlearn, and the audits, jobs and models that its parts read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from engine.applications.unlearning.audit_record import Audit, read_audits
from engine.applications.unlearning.before_after import (
    BeforeAfter,
    before_after_files,
    read_before_after,
)
from engine.applications.unlearning.made import MadeByAudit, read_made_by_audit
from engine.applications.unlearning.method_verdict import best
from engine.applications.unlearning.predicted_effect import PredictedMargins, read_predicted_margins
from engine.applications.unlearning.settings import TITLES
from engine.applications.unlearning.sources import SOURCES, Source, check_source
from engine.build.retraining import Removal, retrained_fingerprint
from engine.running.jobs.queue import Job, jobs
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.store.errors import DataloupeError
from engine.store.layout import Split
from engine.study.reader import StudyReader

EFFECT, AUDIT, BEFORE, MODEL = "effect", "audit", "before", "model"
PANES = {
    EFFECT: "Predicted effect",
    AUDIT: "Unlearn and audit",
    BEFORE: "Before and after",
    MODEL: "The model",
}
ON = {"forget": "Forgotten", "retain": "Kept", "test": "Test"}
"""The parts that an audit evaluates on."""
RECENT_JOBS = 200


@dataclass(frozen=True)
class Query:
    """The checked URL parameters.

    Attributes:
        pane: One of PANES.
        part: One of ON.
        audit: The audit shown; None if this set has none.
        method: The method of the audit shown in detail.
        problems: Messages about invalid parameters.
    """

    pane: str
    part: str
    audit: Audit | None
    method: str | None
    problems: tuple[str, ...]


def read_query(audits: list[Audit]) -> Query:
    """Read and check the URL parameters.

    Args:
        audits: All audits of the forget set, oldest first.
    """
    problems: list[str] = []
    query = st.query_params
    pane = query.get("pane", AUDIT if audits else EFFECT)
    if pane not in PANES:
        problems.append(f"This page shows {', '.join(PANES)}, not “{pane[:40]}”.")
        pane = EFFECT
    part = query.get("on", "forget")
    if part not in ON:
        problems.append(f"An audit evaluates on {', '.join(ON)}, not on “{part[:40]}”.")
        part = "forget"
    audit, wanted = (audits[-1] if audits else None), query.get("audit")
    if wanted is not None:
        found = next((one for one in audits if one.id == wanted), None)
        if found is None:
            problems.append(f"There is no audit “{wanted[:40]}” of these examples.")
        audit = found or audit
    method = None if audit is None else best(audit)
    by = query.get("unlearned_by")
    if audit is not None and by is not None:
        if by in [one.method for one in audit.methods]:
            method = by
        else:
            problems.append(f"This audit has no method “{by[:40]}”.")
    return Query(pane, part, audit, method, tuple(problems))


def title_of(method: str) -> str:
    """Display name of a method."""
    return TITLES[method][0] if method in TITLES else method


def audits(study: StudyReader, algorithm: str) -> list[Audit]:
    """All audits of an algorithm, oldest first. Raises StoreError for a broken one."""
    files = layout.unlearning_audit_files(study.root, algorithm)
    return _audits(algorithm, stamps_of(files), study)


@st.cache_resource(max_entries=4, show_spinner=False)
def _audits(algorithm: str, stamps: Stamps, _study: StudyReader) -> list[Audit]:
    return read_audits(_study, algorithm)


def audits_of(study: StudyReader, algorithm: str, removed: Removal) -> list[Audit]:
    """The audits of one forget set with the current recipe, oldest first."""
    found = [one for one in audits(study, algorithm) if one.forget == list(removed)]
    if not found:
        return []
    fingerprint = retrained_fingerprint(study, algorithm, removed)
    return [one for one in found if one.fingerprint == fingerprint]


def read_predicted(study: StudyReader, algorithm: str, removed: Removal) -> PredictedMargins | None:
    """Predicted margins of the examples to forget; None until a job has computed them."""
    return read_predicted_margins(study, algorithm, removed)


def before_and_after(
    study: StudyReader, audit: Audit, method: str, split: Split = "train"
) -> BeforeAfter:
    """What an audit's models make of the examples to forget, or of the test examples that these
    support most."""
    files = [
        layout.dataset_file(study.root),
        *(file for files in before_after_files(study, audit, method) for file in files),
    ]
    return _before_and_after(audit.id, method, split, stamps_of(files), study, audit)


@st.cache_resource(max_entries=16, show_spinner="Reading model outputs…")
def _before_and_after(
    audit: str, method: str, split: Split, stamps: Stamps, _study: StudyReader, _audit: Audit
) -> BeforeAfter:
    return read_before_after(_study, _audit, method, split)


def made_by_audit(study: StudyReader, audit: Audit, method: str) -> MadeByAudit | None:
    """What an audit's models make from the same seeds; None where they make nothing."""
    files = [file for files in before_after_files(study, audit, method) for file in files]
    return _made_by_audit(audit.id, method, stamps_of(files), study, audit)


@st.cache_resource(max_entries=4, show_spinner="Reading pictures…")
def _made_by_audit(
    audit: str, method: str, stamps: Stamps, _study: StudyReader, _audit: Audit
) -> MadeByAudit | None:
    return read_made_by_audit(_study, _audit, method)


def sources(study: StudyReader, algorithm: str) -> list[Source]:
    """The sources that can predict class logits in this study."""
    found = []
    for source in SOURCES:
        try:
            check_source(study, algorithm, source)
        except DataloupeError:
            continue
        found.append(source)
    return found


def latest_job(study: StudyReader, kind: str, algorithm: str, removed: Removal) -> Job | None:
    """The newest job of a kind about this forget set."""
    about = {"forget": list(removed), "algorithm": algorithm}
    return next(
        (
            one
            for one in jobs(study.root, newest=RECENT_JOBS)
            if one.kind == kind and all(one.parameters[key] == about[key] for key in about)
        ),
        None,
    )


def content_of(path: Path) -> bytes:
    """Content of a file, read only when it is downloaded."""
    return path.read_bytes()
