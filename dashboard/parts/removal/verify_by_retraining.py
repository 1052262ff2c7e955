"""Verify a removal by retraining: the button, the progress, and predicted against actual."""

from __future__ import annotations

from html import escape

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from dashboard.parts.charts.predicted_vs_actual import TEAL, add_diagonal
from dashboard.parts.jobs.cost import cost_words
from dashboard.parts.jobs.job_card import job_card
from dashboard.parts.jobs.submit_button import job_button, pop_message, set_message
from dashboard.parts.layout.blocks import aside, table
from dashboard.read.columns import output_name
from dashboard.read.studies import open_study
from engine.applications.verification import Verification, agreement, predicted_and_actual
from engine.build.retraining import check_recipe
from engine.running.jobs.queue import Job, job, jobs
from engine.store.errors import DataloupeError
from engine.store.quantities import CHANGE, CORRELATION, SLOPE
from engine.store.rows import evenly_spread
from engine.study.capabilities import has
from engine.study.reader import StudyReader

KIND = "verify"
SEEDS = 5
MOST_TESTS = 2_000
"""The most test examples that a verification reports; from more, an evenly spread sample."""
MOST_DRAWN = 2_000
"""The most points in a chart."""
SECONDS = 2.0
HEIGHT = 420


def verify_button(
    study: StudyReader, algorithm: str, method: str, rows: np.ndarray, words: str
) -> None:
    """Show the button that retrains with and without these rows, or what to add first."""
    try:
        check_recipe(study, algorithm)
    except DataloupeError as error:
        aside(str(error))
        return
    tests = evenly_spread(study.dataset.n_test, MOST_TESTS).tolist()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        seeds = st.number_input("Models on each side", 1, 20, SEEDS, key="seeds", width=190)
        parameters = {
            "removed": rows.tolist(),
            "tests": tests,
            "seeds": int(seeds),
            "algorithm": algorithm,
            "method": method,
        }
        job_button(
            "Verify by retraining",
            study,
            KIND,
            parameters,
            f"Verify without {words}",
            icon=":material/science:",
            key="verify",
        )
    aside(
        f"Trains at most {2 * int(seeds):,} models, fewer where some exist already: "
        f"{cost_words(study, algorithm, 2 * int(seeds))} here."
    )
    if message := pop_message(KIND):
        st.html(f'<p class="dl-result" data-kind="wrong" role="status">{escape(message)}</p>')
    _progress(study, algorithm)


def _active(study: StudyReader) -> list[Job]:
    return [one for one in jobs(study.root, active=True) if one.kind == KIND]


def _progress(study: StudyReader, algorithm: str) -> None:
    """Show the progress of waiting and running verifications; rerun the page when one ends."""
    active = _active(study)
    if not active:
        return
    seen = {one.id for one in active}

    @st.fragment(run_every=SECONDS)
    def watch() -> None:
        study = open_study()
        now = _active(study)
        for ended in sorted(seen - {one.id for one in now}):
            found = job(study.root, ended)
            if found.status == "failed":
                set_message(KIND, f"{found.title} failed: {found.error}")
        if {one.id for one in now} != seen:
            st.rerun()
        for one in now:
            job_card(study, one, with_log=False)

    watch()


# --- predicted against actual ------------------------------------------------------------------


def verification_result(study: StudyReader, one: Verification) -> None:
    """Show the result of a verification: flips, a scatter plot, and means by class."""
    known = [outcome for outcome in one.outcomes if outcome.predicted is not None]
    predicted = np.array([outcome.predicted.mean for outcome in known if outcome.predicted])
    actual = np.array([outcome.change for outcome in known])
    words = (
        f"{one.created[:10]}, {one.seeds} models trained with these examples and {one.seeds} "
        "without"
    )
    if has(study, "outcomes"):
        flipped = sum(outcome.flipped for outcome in one.outcomes)
        by_luck = sum(outcome.flipped_by_chance for outcome in one.outcomes)
        words += (
            f": {flipped:,} of {len(one.outcomes):,} predictions flip in most models without "
            f"them; {by_luck:,} flip in most models trained on all data."
        )
    else:
        words += f", on {len(one.outcomes):,} predictions."
    output = output_name(study.dataset)
    found = agreement(predicted, actual)
    if found is not None:
        words += f" Slope {SLOPE.text(found[0])}, correlation {CORRELATION.text(found[1])}."
    aside(words)
    if len(known):
        ids = [outcome.id for outcome in known]
        axes = change_axes(output)
        change_scatter(predicted, actual, ids, f"predicted_actual_{one.id}", words, axes)
    if has(study, "classes"):
        heads = ("Class", "Predicted", "Actual")
        table(f"Mean change of the {output} by class", heads, by_group(one))


def change_axes(output: str) -> tuple[str, str]:
    """Titles of the axes of predicted and actual changes of this model output."""
    return f"Predicted change of the {output}", f"Actual change of the {output}"


def verified(study: StudyReader, proofs: list[Verification]) -> None:
    """Show how well predicted changes match actual ones over all verifications of a method."""
    found = predicted_and_actual(proofs)
    count = len(found["predicted"])
    if not count:
        aside(
            "No removal predicted with these scores has been verified yet. Verify some on the "
            f"{'pages What if and Brittle' if has(study, 'outcomes') else 'page What if'} to "
            "compare predicted with actual changes here."
        )
        return
    words = f"{count:,} predictions in {len(proofs):,} verifications."
    fit = agreement(found["predicted"], found["actual"])
    if fit is not None:
        words += (
            f" The actual change is {SLOPE.text(fit[0])} times the predicted one (slope through "
            f"0); correlation {CORRELATION.text(fit[1])}."
        )
    words += " On the dashed line, actual equals predicted."
    if count > MOST_DRAWN:
        words += f" {MOST_DRAWN:,} evenly spread points are drawn."
    aside(words)
    rows = evenly_spread(count, MOST_DRAWN)
    tests, removed = found["test"][rows].tolist(), found["removed"][rows].tolist()
    names = [f"test row {test}, without {n:,}" for test, n in zip(tests, removed, strict=True)]
    axes = change_axes(output_name(study.dataset))
    change_scatter(found["predicted"][rows], found["actual"][rows], names, "verified", words, axes)


def by_group(one: Verification) -> list[list[str]]:
    """Table rows: class, mean predicted change, mean actual change."""
    rows = []
    for label in sorted({outcome.label for outcome in one.outcomes}):
        mine = [outcome for outcome in one.outcomes if outcome.label == label]
        means = [outcome.predicted.mean for outcome in mine if outcome.predicted is not None]
        predicted = CHANGE.text(float(np.mean(means))) if means else "–"
        rows.append([label, predicted, CHANGE.text(float(np.mean([one.change for one in mine])))])
    return rows


def change_scatter(
    predicted: np.ndarray,
    actual: np.ndarray,
    names: list[str],
    key: str,
    words: str,
    axes: tuple[str, str],
) -> None:
    """Draw points of what `axes` names, with the diagonal."""
    figure = go.Figure()
    ends = add_diagonal(figure, np.concatenate([predicted, actual]))
    figure.add_trace(
        go.Scatter(
            x=predicted,
            y=actual,
            mode="markers",
            marker={"color": TEAL, "size": 6},
            opacity=0.5,
            text=names,
            hovertemplate=f"%{{text}}<br>{axes[0]} %{{x:.2f}}<br>{axes[1]} %{{y:.2f}}"
            "<extra></extra>",
        )
    )
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        showlegend=False,
        hovermode="closest",
        dragmode=False,
        xaxis={"title": axes[0], "range": ends, "zeroline": False},
        yaxis={"title": axes[1], "zeroline": False},
    )
    st.plotly_chart(
        figure,
        key=key,
        config={"displayModeBar": False, "scrollZoom": False},
        alt=f"{axes[0]} against {axes[1].lower()}, {len(actual):,} points. {words}",
    )
