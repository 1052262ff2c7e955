"""The effect of forgetting on the margins of the forgotten examples themselves.

They are predicted before training, and measured on the models of an audit afterward.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from dashboard.location import TRAINING, Location
from dashboard.parts.gallery.cards import training_card
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.jobs.job_panel import job_panel
from dashboard.parts.jobs.submit_button import job_button, pop_message
from dashboard.parts.layout.blocks import aside, figures, heading
from dashboard.parts.layout.messages import warning
from dashboard.parts.removal.verify_by_retraining import change_scatter
from dashboard.read.audits import before_and_after, latest_job, read_predicted, title_of
from dashboard.read.studies import Examples, examples
from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.before_after import probability
from engine.build.retraining import Removal
from engine.store.quantities import CHANGE, OUTPUT, PROBABILITY
from engine.store.rows import evenly_spread
from engine.study.reader import StudyReader

SIDE = 112
SHOWN = 36
MOST_DRAWN = 2_000
KIND = "predict"


# --- predicted ----------------------------------------------------------------------------------


def predicted_margins(study: StudyReader, removed: Removal, location: Location, kind: str) -> None:
    """Show the current and predicted margins of the forgotten examples, or how to get them."""
    algorithm = location.algorithm
    found = read_predicted(study, algorithm, removed)
    heading(f"The forgotten {kind}s themselves")
    if found is None:
        _ask(study, algorithm, removed, kind)
        return
    change = found.after - found.before
    words = (
        f"Margin of each label now → predicted for models not trained on it. The {kind}s that "
        "change most are shown."
    )
    if not found.calibrated:
        words += " Uncalibrated: use the order of the changes, not their size."
    largest = float(np.abs(change).max()) or 1.0
    order = np.argsort(change, kind="stable")[:SHOWN]
    training = examples(study, "train", algorithm)
    cards = []
    for place in order:
        note = OUTPUT.change(found.before[place], found.after[place])
        card = _card(training, int(found.rows[place]), f"margin {note}", location)
        shown = CHANGE.text(change[place])
        bar = abs(float(change[place])) / largest
        cards.append(replace(card, note=note, score=shown, bar=bar))
    _gallery(study, training, cards, "Forgotten training examples", words, location, "predicted")


def _ask(study: StudyReader, algorithm: str, removed: Removal, kind: str) -> None:
    job = latest_job(study, KIND, algorithm, removed)
    if job is not None and job.status != "done":
        job_panel(study, job.id)
        if job.active:
            return
    aside(
        f"Predicting the outputs of models trained without these {kind}s takes one pass of the "
        "study's checkpoints over the training data. It trains nothing; unlearning methods use "
        "the result later."
    )
    job_button(
        "Predict margins",
        study,
        KIND,
        {"forget": list(removed), "algorithm": algorithm},
        f"Predict the effect of forgetting {len(removed):,} examples",
        icon=":material/online_prediction:",
        key="predict",
    )
    if message := pop_message(KIND):
        warning([message])


# --- before and after ---------------------------------------------------------------------------


def before_after(
    study: StudyReader, audit: Audit, method: str, location: Location, kind: str
) -> None:
    """Show each forgotten example before, unlearned, and for models retrained without it."""
    found = before_and_after(study, audit, method)
    name = title_of(method)
    before, unlearned, oracle = map(probability, (found.before, found.unlearned, found.oracle))
    means = [PROBABILITY.text(part.mean()) for part in (before, unlearned, oracle)]
    figures(
        {
            "Before": (means[0], "mean probability of the label"),
            "Unlearned": (means[1], f"by {name}"),
            "Retrained": (means[2], "by models never trained on them: the target"),
        }
    )
    training = examples(study, "train", audit.algorithm)
    order = np.argsort(oracle - before, kind="stable")[:SHOWN]
    cards = []
    for place in order:
        was, now, truth = (PROBABILITY.text(part[place]) for part in (before, unlearned, oracle))
        bar = float(oracle[place])
        hint = f"{was} before, {now} unlearned, {truth} retrained"
        card = _card(training, int(found.rows[place]), hint, location)
        cards.append(
            replace(
                card,
                note=PROBABILITY.change(before[place], unlearned[place]),
                score=f"retrained {truth}",
                bar=bar,
            )
        )
    words = (
        f"Probability of the label before → unlearned, and by models retrained without the {kind}; "
        "largest fall by retraining first."
    )
    _gallery(study, training, cards, "Forgotten training examples", words, location, "before_after")
    heading("Unlearned against retrained")
    means_of = [part.mean(axis=0) for part in (found.unlearned, found.oracle)]
    words = (
        f"Mean margin of each forgotten {kind} over {audit.models:,} models. On the dashed line, "
        "unlearned and retrained models agree."
    )
    aside(words)
    drawn = evenly_spread(len(found.rows), MOST_DRAWN)
    ids = [str(training.ids[row]) for row in found.rows[drawn]]
    change_scatter(
        means_of[0][drawn],
        means_of[1][drawn],
        ids,
        f"unlearned_{audit.id}_{method}",
        words,
        ("Margin, unlearned", "Margin, retrained"),
    )


def _card(training: Examples, row: int, words: str, location: Location) -> Card:
    return training_card(row, training.table.iloc[row].to_dict(), words, location, {})


def _gallery(
    study: StudyReader,
    training: Examples,
    cards: list[Card],
    name: str,
    words: str,
    location: Location,
    key: str,
) -> None:
    aside(words)
    gallery(
        study,
        "train",
        [Group(name, cards)],
        SIDE,
        key,
        lambda row: st.switch_page(
            TRAINING, query_params=location.parameters(train=str(training.ids[row]))
        ),
    )
