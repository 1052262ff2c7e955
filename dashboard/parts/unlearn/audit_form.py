"""Unlearn and audit from the page: methods, budget, models, cost, and progress."""

from __future__ import annotations

import streamlit as st

from dashboard.location import go
from dashboard.parts.jobs.cost import cost_words
from dashboard.parts.jobs.job_panel import job_panel
from dashboard.parts.jobs.submit_button import job_button, pop_message
from dashboard.parts.layout.blocks import aside
from dashboard.parts.layout.messages import warning
from dashboard.read.audits import latest_job, sources, title_of
from engine.applications.brittle.supports import MOST
from engine.applications.unlearning.checks import FEWEST, MODELS_DEFAULT, methods_of
from engine.applications.unlearning.cost import AuditCost, audit_cost
from engine.applications.unlearning.settings import BUDGET, TITLES, UNCHANGED
from engine.applications.unlearning.sources import Source, best_source
from engine.build.retraining import Removal
from engine.running.jobs.queue import Job
from engine.study.reader import StudyReader

KIND = "unlearn"
CHOSEN = ["matching", "scrub"]
PREDICTORS: dict[Source, str] = {
    "hybrid": "TRAK + runs",
    "trak": "TRAK",
    "combined": "Newton step + runs",
    "newton": "Newton step",
    "datamodel": "Datamodels",
}


def audit_form(study: StudyReader, algorithm: str, removed: Removal, kind: str) -> None:
    """Show the form that starts an audit, or the progress of this set's last one."""
    job = latest_job(study, KIND, algorithm, removed)
    if job is not None and job.status != "done":
        job_panel(study, job.id, _open)
        if job.active:
            aside("You can close the browser: the job keeps running and its results are saved.")
            return
    offered = [method for method in methods_of(study) if method != UNCHANGED]
    with st.container(horizontal=True, vertical_alignment="bottom", key="unlearn_form"):
        methods = st.multiselect(
            "Methods",
            offered,
            [method for method in CHOSEN if method in offered],
            format_func=title_of,
            key="unlearn_methods",
            help="\n\n".join(f"**{TITLES[one][0]}**: {TITLES[one][1]}" for one in offered),
            width=420,
        )
        budget = budget_input(
            "unlearn_budget", "The compute each method may use per model, the same for all."
        )
        models = st.number_input(
            "Models on each side",
            FEWEST,
            MOST,
            MODELS_DEFAULT,
            key="unlearn_models",
            help="The number of unlearned models and of retrained models they are compared with. "
            "50 give a meaningful result.",
            width=160,
        )
        source: Source = "trak"
        known = sources(study, algorithm)
        if len(known) > 1:
            source = st.selectbox(
                "Predicted by",
                known,
                index=known.index(best_source(study, algorithm)),
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
            f"Unlearn {len(removed):,} {kind}s and audit",
            icon=":material/ink_eraser:",
            type="primary",
            key="unlearn",
            disabled=not methods,
        )
    if message := pop_message(KIND):
        warning([message])
    if not methods:
        aside("Choose at least one method. Doing nothing is always included for comparison.")
        return
    found = audit_cost(study, removed, methods, int(models), budget, algorithm, source)
    aside(_cost(found, int(models), cost_words(study, algorithm, found.trainings)))


def budget_input(key: str, words: str | None = None) -> float:
    """Show the budget control; return the budget as a share of a retraining.

    Args:
        words: Help text.
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


def _cost(found: AuditCost, models: int, time: str) -> str:
    """The number of models to train, and the time that everything takes."""
    words = f"Trains {found.missing:,} models"
    if found.there:
        words += f" ({found.there:,} more exist already and are reused)"
    words += (
        f". Unlearning {models:,} models by each method, including the search for its settings, "
        f"costs at most as much as training {max(1, round(found.unlearning)):,} more. "
        f"In total, this takes {time} here. No optimizer state is needed: each method starts with "
        "a fresh optimizer."
    )
    return words


def _open(job: Job) -> None:
    """Open the audit that has just finished."""
    go(audit=job.result["audit"], unlearned_by=None)
