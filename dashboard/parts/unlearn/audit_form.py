"""Unlearn and audit from the page: methods, budget and models, what that costs, and how far it
is."""

from __future__ import annotations

import streamlit as st

from dashboard.location import go
from dashboard.parts.jobs.job_panel import job_panel
from dashboard.parts.jobs.submit_button import job_button, refusal
from dashboard.parts.layout.blocks import aside
from dashboard.parts.layout.messages import warning
from dashboard.read.audits import latest_job, sources, title_of
from engine.applications.brittle.supports import MOST
from engine.applications.unlearning.bank_changes import Source
from engine.applications.unlearning.checks import FEWEST, MODELS_DEFAULT
from engine.applications.unlearning.cost import AuditCost, audit_cost
from engine.applications.unlearning.settings import BUDGET, TITLES, UNCHANGED
from engine.build.retraining import Removal
from engine.running.jobs.queue import Job
from engine.study.reader import StudyReader

KIND = "unlearn"
METHODS = [method for method in TITLES if method != UNCHANGED]
CHOSEN = ["matching", "scrub"]
PREDICTORS: dict[Source, str] = {
    "trak": "TRAK",
    "datamodel": "Datamodels",
    "hybrid": "TRAK + runs",
}


def audit_form(study: StudyReader, algorithm: str, removed: Removal, kind: str) -> None:
    """Choose and begin an audit, or see how far the last one of this set is."""
    job = latest_job(study, KIND, algorithm, removed)
    if job is not None and job.status != "done":
        job_panel(study, job.id, _open)
        if job.active:
            aside("Close the browser if you like: this goes on, and what is finished is kept.")
            return
    with st.container(horizontal=True, vertical_alignment="bottom", key="unlearn_form"):
        methods = st.multiselect(
            "Methods",
            METHODS,
            CHOSEN,
            format_func=title_of,
            key="unlearn_methods",
            help="\n\n".join(f"**{TITLES[one][0]}**: {TITLES[one][1]}" for one in METHODS),
            width=420,
        )
        budget = budget_input(
            "unlearn_budget", "What each method may take for one model: the same for all."
        )
        models = st.number_input(
            "Models to judge by",
            FEWEST,
            MOST,
            MODELS_DEFAULT,
            key="unlearn_models",
            help="So many unlearned models against so many retrained ones. 50 say something.",
            width=160,
        )
        source: Source = "trak"
        known = sources(study, algorithm)
        if len(known) > 1:
            source = st.selectbox(
                "Predicted by",
                known,
                format_func=PREDICTORS.__getitem__,
                key="unlearn_source",
                width=160,
            )
        parameters = {
            "forget": list(removed),
            "methods": methods,
            "models": int(models),
            "budget": budget,
            "algorithm": algorithm,
            "source": source,
        }
        job_button(
            "Unlearn and audit",
            study,
            KIND,
            parameters,
            f"Unlearn {len(removed):,} {kind}s, and audit it",
            icon=":material/ink_eraser:",
            type="primary",
            key="unlearn",
            disabled=not methods,
        )
    if told := refusal(KIND):
        warning([told])
    if not methods:
        aside("Choose a method or more. Doing nothing is always judged beside them.")
        return
    found = audit_cost(study, removed, methods, int(models), budget, algorithm, source)
    aside(_cost(found, int(models), study.checkpoints(algorithm)))


def budget_input(key: str, words: str | None = None) -> float:
    """The control of the budget, as a share of a retraining.

    Args:
        words: What it means, told on request.
    """
    percent = st.number_input(
        "Budget, % of a retraining",
        0.1,
        100.0,
        100 * BUDGET,
        step=1.0,
        format="%.1f",
        key=key,
        help=words,
        width=190,
    )
    return round(float(percent) / 100, 6)


def _cost(found: AuditCost, models: int, checkpoints: int) -> str:
    """What is trained, and how long that is, measured by the checkpoints that were trained here."""
    times = found.trainings / checkpoints
    words = f"Trains {found.missing:,} models"
    if found.there:
        words += f" ({found.there:,} are there already, and none is trained twice)"
    words += (
        f"; unlearning {models:,} models by each method, and the search of its settings, take at "
        f"most as much as {found.unlearning:,.1f} more. In all about {times:,.1f} times what the "
        f"{checkpoints:,} checkpoints here took. No optimiser state is needed: steps begin anew."
    )
    return words


def _open(job: Job) -> None:
    """The audit that this page was watching is what is read now."""
    go(audit=job.result["audit"], unlearned_by=None)
