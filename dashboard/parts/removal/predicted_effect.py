"""The predicted effect of removing training examples: figures, by class, and by example."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, TRAINING, Location
from dashboard.names import short
from dashboard.parts.charts.interval_bars import Bar, intervals
from dashboard.parts.gallery.cards import signed, test_cards, weight_cards
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.layout.blocks import aside, figures, heading
from dashboard.parts.layout.messages import warning
from dashboard.read.studies import Examples, examples, weights
from engine.attribution.evaluation.counterfactual import Counterfactual
from engine.study.reader import StudyReader
from engine.study.removal_sets import RemovalSet

SIDE = 112
SHOWN = 24
CLASSES_SHOWN = 24


def headline(study: StudyReader, found: Counterfactual, kind: str, name: str = "Removed") -> None:
    """Show the main figures, and a warning where the effect cannot be predicted.

    Args:
        name: What was done to the examples.
    """
    if found.emptied:
        names = ", ".join(short(label) for label in found.emptied[:5])
        warning(
            [
                f"This would remove every example of {names}. Scores cannot predict that: do not "
                "rely on these figures."
            ]
        )
    of = study.dataset.n_train
    removed = len(found.removed)
    shown = {name: (f"{removed:,}", f"{removed / of:.1%} of {of:,} training {kind}s")}
    if found.calibrated and found.before is not None:
        shown["Lost"] = (f"{len(found.lost):,}", "margins predicted to fall below 0")
        shown["Won"] = (f"{len(found.won):,}", "margins predicted to rise above 0")
    label, worst = min(found.by_group.items(), key=lambda item: item[1].mean)
    unit = "of margin" if found.calibrated else "of scores (no unit)"
    shown["Hit most"] = (short(label), f"{signed(worst.mean, 1.0)} {unit}, on average")
    figures(shown)


def removed_gallery(
    study: StudyReader, removed: RemovalSet, location: Location, kind: str, name: str = "Removed"
) -> None:
    """Show the removed examples, most influential first."""
    training = examples(study, "train", location.algorithm)
    weight = weights(study, location.algorithm, str(location.method))
    order = removed.rows[np.argsort(-weight.total[removed.rows], kind="stable")]
    more = f"; the {SHOWN} most influential are shown" if len(order) > SHOWN else ""
    gallery(
        study,
        "train",
        [
            Group(
                f"{name} training examples",
                weight_cards(training, order[:SHOWN], weight, location),
                title=name,
                words=f"{len(order):,} training {kind}s{more}. Numbers: total influence.",
            )
        ],
        SIDE,
        "removed",
        lambda row: st.switch_page(
            TRAINING, query_params=location.parameters(train=str(training.ids[row]))
        ),
    )


def effect_by_group(found: Counterfactual) -> None:
    """Show the mean change of each class, worst first."""
    heading("Predicted effect by class")
    aside(
        "Mean change of the margin over each class's test examples, with its 95% interval."
        if found.calibrated
        else "Uncalibrated: sums of scores rank the classes. They are not changes of the margin "
        "and have no interval. Subset runs calibrate them: see Quality."
    )
    worst = sorted(found.by_group.items(), key=lambda item: item[1].mean)
    if len(worst) > CLASSES_SHOWN:
        half = CLASSES_SHOWN // 2
        aside(f"The {half} classes at each end of {len(worst):,}.")
        worst = worst[:half] + worst[-half:]
    bars = [Bar(label, mean) for label, mean in worst]
    st.html(intervals(bars, "Mean change of the margin by class", changes=True))


def affected(study: StudyReader, found: Counterfactual, location: Location, kind: str) -> None:
    """Show the predictions that change most, in both directions."""
    tests = examples(study, "test", location.algorithm)
    unit = "margin" if found.calibrated else "sum of scores"
    falls, rises = found.strongest(-1, SHOWN), found.strongest(1, SHOWN)
    gallery(
        study,
        "test",
        [
            Group(
                "Predictions that fall most",
                _cards(tests, found, falls, location),
                title="Falls most",
                words=f"Their true label's {unit} would be lower without those {kind}s.",
                sign="oppose",
                empty="No prediction would fall.",
            ),
            Group(
                "Predictions that rise most",
                _cards(tests, found, rises, location),
                title="Rises most",
                words=f"Their true label's {unit} would be higher without them.",
                sign="support",
                empty="No prediction would rise.",
            ),
        ],
        SIDE,
        "affected",
        lambda row: st.switch_page(
            EXPLAIN, query_params=location.parameters(test=str(tests.ids[row]))
        ),
    )


def _cards(
    tests: Examples, found: Counterfactual, rows: np.ndarray, location: Location
) -> list[Card]:
    """Cards of test examples with the change of their margins and whether they flip."""
    largest = float(np.abs(found.change).max(initial=0)) or 1.0
    crossing = {*found.lost.tolist(), *found.won.tolist()}
    after = found.after
    cards = []
    for card in test_cards(tests, rows, location):
        change = float(found.change[card.row])
        shown = signed(change, largest)
        hint, note = f"{card.hint}; changes by {shown}", card.note
        if found.before is not None and after is not None:
            ends = [signed(float(end[card.row]), 100.0) for end in (found.before, after)]
            note = f"{ends[0]} → {ends[1]}"
            hint += f", margin {note}"
        flips = card.row in crossing
        cards.append(
            replace(
                card,
                note=note,
                hint=hint + (", flips" if flips else ""),
                aside="",
                score=shown,
                bar=abs(change) / largest,
                tag="flips" if flips else None,
                mark="alone" if flips else None,
            )
        )
    return cards
