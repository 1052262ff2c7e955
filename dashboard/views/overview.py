"""Overview: how good the predictions are, the most influential data, quality of the scores.

Predictions that can be right show their accuracy and, with one class each, the confusion matrix;
numbers show their error.
"""

from __future__ import annotations

from html import escape

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, EXPLORE, TRAINING, read_location
from dashboard.parts.charts.confusion_matrix import confusion
from dashboard.parts.charts.histogram import Series, histogram
from dashboard.parts.charts.number_errors import (
    error_figures,
    error_histogram,
    error_scatter,
    output_histogram,
)
from dashboard.parts.charts.recall import recall_figures
from dashboard.parts.gallery.cards import test_cards, weight_cards
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.layout.blocks import aside, figures, heading
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.finding_list import finding_list
from dashboard.parts.layout.first_visit_guide import guide
from dashboard.parts.layout.page_fragment import part
from dashboard.parts.layout.page_title import title
from dashboard.parts.quality.quality_badge import full_quality_badge, link_to_quality
from dashboard.read.columns import output_noun
from dashboard.read.rows_in_words import mistakes_first
from dashboard.read.studies import badge, examples, open_study, weights, what_it_shows
from dashboard.slice_parameters import Slice
from engine.store.quantities import ACCURACY, LDS, OUTPUT, SHARE, TOTAL_INFLUENCE
from engine.study.capabilities import has, missing
from engine.study.methods import has_scores
from engine.study.models import has_predictions
from engine.study.retrieval import has_ranks

SIDE = 112
MOST_INFLUENTIAL = 22
WORST = 6
BINS = 32

study = open_study()
here = read_location(study)
algorithm, method = here.algorithm, here.method
kind = f"{what_it_shows(study)}s"

# Pages opened from here show the full study, not a slice that is left in the URL.
location = here.of_slice(Slice())

labels_are_classes = not study.has_data or has(study, "classes")

if not study.has_data:
    guide(outcomes=labels_are_classes)
    st.html(title("Overview", "nothing is computed yet"))
    building("The overview fills in as the study is built", lambda study: study.has_data, algorithm)
    st.stop()

dataset = study.dataset
tests, training = examples(study, "test", algorithm), examples(study, "train", algorithm)

# --- numbers in one strip -----------------------------------------------------------------------

# How they were read, column by column, stands on Provenance.
st.html(title("Overview", f"{kind} from {study.spec.data.source}"))
shown = {
    "Training": (f"{dataset.n_train:,}", kind),
    "Test": (f"{dataset.n_test:,}", kind),
}
if dataset.classes:
    shown["Classes"] = f"{len(dataset.classes):,}", "in the dataset"
checkpoints = {"Checkpoints": (f"{study.checkpoints(algorithm):,}", "averaged to predict")}
if tests.has_outcomes:
    right, known = tests.table["correct"], training.table["correct"]
    shown = {
        "Test accuracy": (
            ACCURACY.text(right.mean()),
            f"{right.sum():,} of {dataset.n_test:,} correct",
        ),
        "Wrong": (f"{(~right).sum():,}", f"test {kind}"),
        "Training accuracy": (
            ACCURACY.text(known.mean()),
            f"{(~known).sum():,} of {dataset.n_train:,} not learned",
        ),
    } | checkpoints
    if has_ranks(study, algorithm):
        del shown["Training accuracy"]  # training pairs are not among those that are ranked
        shown = recall_figures(study, algorithm) | shown
elif "error" in tests.numbers:
    shown = error_figures(tests, training, kind) | checkpoints
elif tests.has_predictions:
    shown |= checkpoints
if method is not None:
    trust = badge(study, algorithm, method)
    if trust.lds is not None and trust.lds_low is not None and trust.lds_high is not None:
        interval = LDS.within(trust.lds, trust.lds_low, trust.lds_high)
        number, _, words = interval.partition(" ")
        shown[f"LDS of {trust.method}"] = number, words.strip("()")
figures(shown)

if method is None:
    # Stop watching at the next result that can be shown: predictions or scores.
    predicted = tests.has_predictions
    building(
        "Influence appears as soon as the scores are computed"
        if predicted
        else "Accuracy and mistakes appear as soon as the predictions are computed"
        if dataset.outcomes is not None
        else "Predictions appear here as soon as they are computed",
        lambda study: (
            has_scores(study, algorithm) or (not predicted and has_predictions(study, algorithm))
        ),
        algorithm,
    )

# --- what was found, and how to begin -------------------------------------------------------------

# Drawn last: the first time, some findings take seconds, and the rest of the page needs not wait.
findings = st.container(key="findings") if tests.has_predictions else None
guide(outcomes=labels_are_classes)

# --- mistakes or errors, and the distribution of outputs ------------------------------------------


def mistakes() -> None:
    """The confusion matrix, and where the mistakes are."""
    if "label" in tests.codes:
        heading("Confusion matrix")
        part(
            here,
            lambda *_: confusion(
                tests,
                location,
                lambda filters: st.switch_page(
                    EXPLORE, query_params=location.parameters(**filters)
                ),
            ),
        )
    else:
        worst_mistakes()
    with st.container(horizontal=True):
        if st.button(f"All {(~right).sum():,} mistakes", icon=":material/grid_view:"):
            st.switch_page(EXPLORE, query_params=location.parameters(result="wrong"))
        which = "Most confident" if "confidence" in tests.table else "Worst"
        if st.button(f"{which} mistake", disabled=bool(right.all())):
            worst = str(tests.ids[mistakes_first(tests)[0]])
            query = location.parameters(test=worst, result="wrong")
            st.switch_page(EXPLAIN, query_params=query)


def worst_mistakes() -> None:
    """The mistakes to look at first, where there is no confusion matrix."""
    group = Group(
        "Worst mistakes",
        test_cards(tests, mistakes_first(tests)[:WORST], location),
        title="Worst mistakes",
        words=f"Wrong predictions with the lowest {tests.output.removesuffix('s')}s.",
        empty="None: every prediction is right.",
    )
    gallery(
        study,
        "test",
        [group],
        SIDE,
        "worst",
        lambda row: st.switch_page(
            EXPLAIN, query_params=location.parameters(test=str(tests.ids[row]), result="wrong")
        ),
    )


def errors() -> None:
    """Predicted against actual numbers, and the largest errors."""
    heading("Predicted against true labels")
    error_scatter(tests)
    if st.button("Largest errors", icon=":material/grid_view:"):
        st.switch_page(EXPLORE, query_params=location.parameters(sort="error"))
    aside(missing(study, "outcomes"))


def outputs() -> None:
    """The distribution of the model output, or of the errors."""
    if "error" in tests.numbers:
        heading("Error distribution")
        st.html(error_histogram(tests))
        return
    heading(f"{tests.output.capitalize()} distribution")
    if not tests.has_outcomes:
        st.html(output_histogram(tests, dataset.output_title))
        return
    output = tests.numbers["output"]
    reach = max(1.0, float(np.ceil(np.quantile(np.abs(output), 0.995))))
    words = "The outermost bins include all values beyond them."
    if has(study, "classes"):
        words = (
            "Log-odds of the true label in the mean logits. Above 0 it is more likely than "
            "all others together; the outermost bins include all values beyond them."
        )
    noun = output_noun(dataset)
    st.html(
        histogram(
            noun[0].upper() + noun[1:],
            words,
            [Series("correct", output[right], "good"), Series("wrong", output[~right], "wrong")],
            np.linspace(-reach, reach, BINS + 1),
            (OUTPUT.text(-reach), "0", OUTPUT.text(reach)),
        )
    )


if tests.has_predictions:
    left, distributions = st.columns([0.55, 0.45], gap="large")
    with left:
        if tests.has_outcomes:
            mistakes()
        elif "error" in tests.numbers:
            errors()
        else:
            heading("Predictions")
            aside(missing(study, "outcomes"))
    with distributions:
        outputs()
        if method is not None:
            weight = weights(study, algorithm, method)
            some = weight.total[weight.total > 0]
            if len(some) > 1 and some.min() < some.max():
                least, largest = float(np.quantile(some, 0.01)), float(some.max())
                percent = weight.order[: max(1, len(weight.order) // 100)]
                top = weight.total[percent].sum() / some.sum()
                st.html(
                    histogram(
                        "Influence of the training examples",
                        f"Sum of |influence| over all test predictions, {weight.unit}, on a "
                        f"logarithmic axis. The top 1% account for {SHARE.text(top)} of the total.",
                        [Series("training examples", weight.total)],
                        np.geomspace(least, largest, BINS + 1),
                        (
                            f"≤ {TOTAL_INFLUENCE.text(least)}",
                            "logarithmic",
                            TOTAL_INFLUENCE.text(largest),
                        ),
                    )
                )

# --- most influential data, and quality of the scores -------------------------------------------

if method is not None:
    weight = weights(study, algorithm, method)
    group = Group(
        "Most influential training data",
        weight_cards(training, weight.order[:MOST_INFLUENTIAL], weight, location),
        title=f"Most influential training {kind}",
        words=f"Largest sum of |influence| over all test predictions, {weight.unit}, by "
        f"{badge(study, algorithm, method).method}; predictions with larger scores count more.",
    )
    gallery(
        study,
        "train",
        [group],
        SIDE,
        "heaviest",
        lambda row: st.switch_page(
            TRAINING,
            query_params=location.parameters(train=str(training.table["id"].iloc[row])),
        ),
    )

quality, data = st.columns([0.55, 0.45], gap="large")
with quality:
    heading("Quality of the scores")
    if method is not None:
        st.html(full_quality_badge(badge(study, algorithm, method)))
        link_to_quality()
    else:
        st.html(
            '<p class="dl-aside">Method, checkpoints and quality appear here once scores are '
            "computed.</p>"
        )
with data:
    heading("Data")
    if dataset.warnings:
        entries = "".join(f"<li>{escape(line)}</li>" for line in dataset.warnings)
        st.html(f'<ul class="dl-list">{entries}</ul>')
    else:
        st.html('<p class="dl-aside">Reading the data gave no warnings.</p>')

if findings is not None:
    with findings:
        finding_list(study, location)
