"""The predicted effect of removing training examples: figures, by group, and by example."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, TRAINING, Location
from dashboard.names import short
from dashboard.parts.charts.histogram import Series, histogram
from dashboard.parts.charts.interval_bars import Bar, intervals
from dashboard.parts.gallery.cards import test_cards, weight_cards
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.layout.blocks import aside, figures, heading
from dashboard.parts.layout.messages import warning
from dashboard.read.columns import output_name
from dashboard.read.effects import counterfactual
from dashboard.read.studies import Examples, examples, weights
from engine.attribution.evaluation.counterfactual import Counterfactual
from engine.store.quantities import CHANGE, OUTPUT
from engine.study.calibration_advice import calibration_advice
from engine.study.capabilities import has
from engine.study.groups import group_columns
from engine.study.reader import StudyReader
from engine.study.removal_sets import RemovalSet

SIDE = 112
SHOWN = 24
CLASSES_SHOWN = 24
BINS = 32


def headline(study: StudyReader, found: Counterfactual, kind: str, name: str = "Removed") -> None:
    """Show the main figures, and a warning where the effect cannot be predicted.

    Args:
        name: What was done to the examples.
    """
    if found.emptied:
        names = ", ".join(short(group) for group in found.emptied[:5])
        warning(
            [
                f"This would remove every example of {names}. Scores cannot predict that: do not "
                "rely on these figures."
            ]
        )
    of = study.dataset.n_train
    removed = len(found.removed)
    shown = {name: (f"{removed:,}", f"{removed / of:.1%} of {of:,} training {kind}s")}
    output = output_name(study.dataset)
    if found.can_flip:
        shown["Flips"] = (
            f"{len(found.flips):,}",
            f"of {len(found.change):,} predicted classes change: {len(found.lost):,} from right "
            f"to wrong, {len(found.won):,} from wrong to right",
        )
    unit = f"of {output}" if found.calibrated else "of scores (no unit)"
    if found.by_group:
        group, worst = min(found.by_group.items(), key=lambda item: item[1].mean)
        shown["Hit most"] = (short(group), f"{CHANGE.text(worst.mean)} {unit}, on average")
    else:
        for title, value in (
            ("Mean change", found.change.mean()),
            ("Largest fall", min(0.0, found.change.min())),
            ("Largest rise", max(0.0, found.change.max())),
        ):
            shown[title] = CHANGE.text(value), unit
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
                words=f"{len(order):,} training {kind}s{more}. Numbers: total influence, "
                f"{weight.unit}.",
            )
        ],
        SIDE,
        "removed",
        lambda row: st.switch_page(
            TRAINING, query_params=location.parameters(train=str(training.ids[row]))
        ),
    )


def effect_by_group(study: StudyReader, found: Counterfactual, chosen: RemovalSet) -> None:
    """Show the mean change of each class, or of each group of a column, worst first.

    Without either, show the changes of all.
    """
    output = output_name(study.dataset)
    by = _chosen_group(study)
    if by is not None:
        found = counterfactual(study, found.algorithm, found.method, chosen, by)
    if not found.by_group:
        _all_changes(study, found, output)
        return
    one, several = ("class", "classes") if by is None else (by, f"groups by {by}")
    heading(f"Predicted effect by {one}")
    aside(
        f"Mean change of the {output} over each {'class' if by is None else 'group'}'s test "
        "examples, with its 95% interval."
        if found.calibrated
        else f"Uncalibrated: sums of scores rank the {several}. They are not changes of the "
        f"{output} and have no interval. "
        f"{calibration_advice(study, found.algorithm, found.method)}"
    )
    worst = sorted(found.by_group.items(), key=lambda item: item[1].mean)
    if len(worst) > CLASSES_SHOWN:
        half = CLASSES_SHOWN // 2
        aside(f"The {half} {several} at each end of {len(worst):,}.")
        worst = worst[:half] + worst[-half:]
    bars = [Bar(group, mean) for group, mean in worst]
    title = f"Mean change of the {output} by {one}"
    st.html(intervals(bars, title, changes=True, quantity=CHANGE))


def _chosen_group(study: StudyReader) -> str | None:
    """The column whose groups are shown, from a choice beside the classes; None: the classes."""
    columns = list(group_columns(study))
    if not columns:
        return None
    plain = "class" if has(study, "classes") else "none"
    chosen: str | None = st.selectbox(
        "Groups",
        [None, *columns],
        format_func=lambda column: plain if column is None else column,
        key="effect_by",
        width=230,
    )
    return chosen


def _all_changes(study: StudyReader, found: Counterfactual, output: str) -> None:
    """Show the histogram of the changes of all test examples."""
    heading("Predicted effect")
    reach = float(np.abs(found.change).max(initial=0)) or 1.0
    words = (
        f"In the unit of the {output}."
        if found.calibrated
        else (
            f"Uncalibrated: sums of scores, which order changes of the {output} but give no size. "
            f"{calibration_advice(study, found.algorithm, found.method)}"
        )
    )
    st.html(
        histogram(
            f"Change of the {output}",
            words,
            [Series("test examples", found.change)],
            np.linspace(-reach, reach, BINS + 1),
            (CHANGE.text(-reach), "0", CHANGE.text(reach)),
        )
    )


def affected(study: StudyReader, found: Counterfactual, location: Location, kind: str) -> None:
    """Show the predictions that change most, in both directions."""
    tests = examples(study, "test", location.algorithm)
    name = tests.output if found.calibrated else "sum of scores"
    what = f"Their true label's {name}" if has(study, "classes") else f"Their {name}"
    falls, rises = found.strongest(-1, SHOWN), found.strongest(1, SHOWN)
    gallery(
        study,
        "test",
        [
            Group(
                "Predictions that fall most",
                _cards(tests, found, falls, location),
                title="Falls most",
                words=f"{what} would be lower without those {kind}s.",
                sign="oppose",
                empty="No prediction would fall.",
            ),
            Group(
                "Predictions that rise most",
                _cards(tests, found, rises, location),
                title="Rises most",
                words=f"{what} would be higher without them.",
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
    """Cards of test examples with the change of their outputs and whether they flip."""
    largest = float(np.abs(found.change).max(initial=0)) or 1.0
    flipping = set(found.flips.tolist())
    after = found.after
    cards = []
    for card in test_cards(tests, rows, location):
        change = float(found.change[card.row])
        shown = CHANGE.text(change)
        hint, note = f"{card.hint}; changes by {shown}", card.note
        if found.before is not None and after is not None:
            note = OUTPUT.change(found.before[card.row], after[card.row])
            hint += f", {tests.output} {note}"
        flips = card.row in flipping
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
