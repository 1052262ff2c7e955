"""The effect of forgetting on the forgotten examples, and on those that they support.

Outputs are predicted before training, and measured on the models of an audit afterward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, TRAINING, Location
from dashboard.parts.gallery.cards import test_cards, training_card
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.jobs.job_panel import job_panel
from dashboard.parts.jobs.submit_button import job_button, pop_message
from dashboard.parts.layout.blocks import aside, figures, heading
from dashboard.parts.layout.messages import warning
from dashboard.parts.removal.verify_by_retraining import change_scatter
from dashboard.parts.unlearn.made_by_models import made_by_models
from dashboard.read.audits import before_and_after, latest_job, read_predicted, title_of
from dashboard.read.studies import Examples, examples
from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.before_after import probability
from engine.build.retraining import Removal
from engine.store.quantities import CHANGE, DENOISING_ERROR, OUTPUT, PROBABILITY, SHARE, Quantity
from engine.store.rows import evenly_spread
from engine.study.capabilities import has
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
    training = examples(study, "train", algorithm)
    output = training.output
    words = (
        f"{output[0].upper()}{output[1:]} of each {_answer(study)} now → predicted for models not "
        f"trained on it. The {kind}s that change most are shown."
    )
    if not found.calibrated:
        words += " Uncalibrated: use the order of the changes, not their size."
    largest = float(np.abs(change).max()) or 1.0
    order = np.argsort(change, kind="stable")[:SHOWN]
    cards = []
    for place in order:
        note = OUTPUT.change(found.before[place], found.after[place])
        card = _card(training, int(found.rows[place]), f"{output} {note}", location)
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
        "Predict outputs",
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
    if made_by_models(study, audit, method):
        heading(f"The forgotten {kind}s themselves")
    found = before_and_after(study, audit, method)
    name = title_of(method)
    what, quantity, read = _measure(study)
    before, unlearned, oracle = (
        read(one.margins) for one in (found.before, found.unlearned, found.oracle)
    )
    means = [quantity.text(part.mean()) for part in (before, unlearned, oracle)]
    figures(
        {
            "Before": (means[0], f"mean {what}"),
            "Unlearned": (means[1], f"by {name}"),
            "Retrained": (means[2], "by models never trained on them: the target"),
        }
    )
    training = examples(study, "train", audit.algorithm)
    has_outcomes = has(study, "outcomes")
    order = np.argsort(oracle - before if has_outcomes else before - oracle, kind="stable")[:SHOWN]
    cards = []
    for place in order:
        was, now, truth = (quantity.text(part[place]) for part in (before, unlearned, oracle))
        bar = float(oracle[place] if has_outcomes else oracle[place] / oracle.max())
        hint = f"{was} before, {now} unlearned, {truth} retrained"
        card = _card(training, int(found.rows[place]), hint, location)
        cards.append(
            replace(
                card,
                note=f"{was} → {now}",
                score=f"retrained {truth}",
                bar=bar,
            )
        )
    words = (
        f"{what[0].upper()}{what[1:]} before → unlearned, and by models retrained without the "
        f"{kind}; largest {'fall' if has_outcomes else 'rise'} by retraining first."
    )
    _gallery(study, training, cards, "Forgotten training examples", words, location, "before_after")
    _still_answered(study, audit, method, location, kind)
    heading("Unlearned against retrained")
    means_of = [part.margins.mean(axis=0) for part in (found.unlearned, found.oracle)]
    output = training.output
    axis = output[0].upper() + output[1:]
    words = (
        f"Mean {output} of each forgotten {kind} over {audit.models:,} models. On the dashed line, "
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
        (f"{axis}, unlearned", f"{axis}, retrained"),
    )


def _still_answered(
    study: StudyReader, audit: Audit, method: str, location: Location, kind: str
) -> None:
    """Whether models still answer the test examples that the forgotten ones support most."""
    found = before_and_after(study, audit, method, "test")
    if not len(found.rows) or found.before.right is None:
        return
    heading(f"Test {kind}s that they support most")
    tests = examples(study, "test", audit.algorithm)
    shares = [one.share_right for one in (found.before, found.unlearned, found.oracle)]
    was, now, truth = (SHARE.text(share.mean()) for share in shares)
    cards = [
        replace(
            card,
            note=f"{SHARE.text(before)} → {SHARE.text(after)} right",
            score=f"retrained {SHARE.text(oracle)}",
            bar=float(oracle),
            wrong=False,
        )
        for card, before, after, oracle in zip(
            test_cards(tests, found.rows, location), *shares, strict=True
        )
    ]
    words = (
        f"Share of the models that answer right, before → unlearned: {was} → {now} over these "
        f"{kind}s; retrained models {truth}. The most supported first."
    )
    aside(words)
    gallery(
        study,
        "test",
        [Group("Supported test examples", cards)],
        SIDE,
        "still_answered",
        lambda row: st.switch_page(
            EXPLAIN, query_params=location.parameters(test=str(tests.ids[row]))
        ),
    )


def _answer(study: StudyReader) -> str:
    """What an example's right answer is called, or the example itself without one."""
    if not has(study, "outcomes"):
        return "picture" if has(study, "pictures") else "example"
    return "label" if has(study, "classes") else "expected text"


def _measure(study: StudyReader) -> tuple[str, Quantity, Callable[[np.ndarray], np.ndarray]]:
    """What margins are shown as: words, the quantity, and margins `[N, k]` → its mean `[k]`."""
    if not has(study, "outcomes"):
        return "loss", DENOISING_ERROR, lambda margins: -margins.mean(axis=0)
    tokens = "" if has(study, "classes") else "’s tokens"
    return f"probability of the {_answer(study)}{tokens}", PROBABILITY, probability


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
