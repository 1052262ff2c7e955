"""What forgetting does to the forgotten examples themselves: their margins, each beside the other.

Before training, they are predicted; after an audit, they are the outputs of its models.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from dashboard.location import TRAINING, Location
from dashboard.parts.gallery.cards import signed, training_card
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.jobs.job_panel import job_panel
from dashboard.parts.jobs.submit_button import job_button, refusal
from dashboard.parts.layout.blocks import aside, figures, heading
from dashboard.parts.layout.messages import warning
from dashboard.parts.removal.verify_by_retraining import change_scatter
from dashboard.read.audits import before_and_after, latest_job, read_predicted, title_of
from dashboard.read.studies import Examples, examples
from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.before_after import probability
from engine.build.retraining import Removal
from engine.store.rows import evenly_spread
from engine.study.reader import StudyReader

SIDE = 112
SHOWN = 36
MOST_DRAWN = 2_000
KIND = "predict"


# --- predicted ----------------------------------------------------------------------------------


def predicted_margins(study: StudyReader, removed: Removal, location: Location, kind: str) -> None:
    """Margins of the forgotten examples, now and predicted; or how to get them."""
    algorithm = location.algorithm
    found = read_predicted(study, algorithm, removed)
    heading(f"The forgotten {kind}s themselves")
    if found is None:
        _ask(study, algorithm, removed, kind)
        return
    change = found.after - found.before
    words = (
        f"Margin of its label now → predicted for models that never saw it, for the {kind}s that "
    )
    words += "change most."
    if not found.calibrated:
        words += " Uncalibrated: the order of the changes says something, their size does not."
    largest = float(np.abs(change).max()) or 1.0
    order = np.argsort(change, kind="stable")[:SHOWN]
    training = examples(study, "train", algorithm)
    cards = []
    for place in order:
        ends = [signed(float(end[place]), 10.0) for end in (found.before, found.after)]
        note = f"{ends[0]} → {ends[1]}"
        card = _card(training, int(found.rows[place]), f"margin {note}", location)
        shown = signed(float(change[place]), largest)
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
        f"What models would say of these {kind}s had they never seen them takes one pass of the "
        "study's checkpoints over the training data. It trains nothing, and methods learn from it "
        "later."
    )
    job_button(
        "Predict it",
        study,
        KIND,
        {"forget": list(removed), "algorithm": algorithm},
        f"Predict forgetting {len(removed):,} examples",
        icon=":material/online_prediction:",
        key="predict",
    )
    if told := refusal(KIND):
        warning([told])


# --- before and after ---------------------------------------------------------------------------


def before_after(
    study: StudyReader, audit: Audit, method: str, location: Location, kind: str
) -> None:
    """Each forgotten example as models had it, have it now, and would have had it."""
    found = before_and_after(study, audit, method)
    name = title_of(method)
    before, unlearned, oracle = map(probability, (found.before, found.unlearned, found.oracle))
    means = [f"{part.mean():.1%}" for part in (before, unlearned, oracle)]
    figures(
        {
            "Before": (means[0], "probability of the label, mean"),
            "Unlearned": (means[1], f"by {name}"),
            "Never seen": (means[2], "by retrained models: where it should be"),
        }
    )
    training = examples(study, "train", audit.algorithm)
    order = np.argsort(oracle - before, kind="stable")[:SHOWN]
    cards = []
    for place in order:
        was, now, truth = (f"{part[place]:.0%}" for part in (before, unlearned, oracle))
        hint = f"{was} before, {now} unlearned, {truth} had it never been seen"
        card = _card(training, int(found.rows[place]), hint, location)
        cards.append(
            replace(card, note=f"{was} → {now}", score=f"never seen {truth}", bar=oracle[place])
        )
    words = (
        f"Probability of its label before → unlearned, and by models that never saw it; {kind}s "
        "that those know least come first."
    )
    _gallery(study, training, cards, "Forgotten training examples", words, location, "before_after")
    heading("Unlearned beside never seen")
    means_of = [part.mean(axis=0) for part in (found.unlearned, found.oracle)]
    words = (
        f"Mean margin of each forgotten {kind} over {audit.models:,} models. On the dashed line, "
        "models that unlearned say what retrained ones do."
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
        ("Margin, unlearned", "Margin, never seen"),
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
