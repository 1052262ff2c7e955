"""Overview: how good the model is, what it mixes up, what weighs most, how far to trust scores."""

from __future__ import annotations

from html import escape

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, EXPLORE, TRAINING, read_location
from dashboard.parts.charts.confusion_matrix import confusion
from dashboard.parts.charts.histogram import Series, histogram
from dashboard.parts.gallery.cards import weight_cards
from dashboard.parts.gallery.gallery import Group, gallery
from dashboard.parts.layout.blocks import figures, heading
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.first_visit_guide import guide
from dashboard.parts.layout.page_fragment import part
from dashboard.parts.layout.page_title import title
from dashboard.parts.quality.quality_badge import full_quality_badge, link_to_quality
from dashboard.read.studies import badge, examples, open_study, weights, what_it_shows
from dashboard.slice_parameters import Slice
from engine.study.methods import has_scores
from engine.study.models import has_predictions

SIDE = 112
HEAVIEST = 22
BINS = 32

study = open_study()
here = read_location(study)
algorithm, method = here.algorithm, here.method
kind = f"{what_it_shows(study)}s"

# What is opened from here is the whole study's, not what some slice left behind.
location = here.of_slice(Slice())


guide()

if not study.has_data:
    st.html(title("Overview", "nothing is computed yet"))
    building("The overview fills as the study is built", lambda study: study.has_data, algorithm)
    st.stop()

dataset = study.dataset
tests, training = examples(study, "test", algorithm), examples(study, "train", algorithm)

# --- figures -----------------------------------------------------------------------------------

st.html(title("Overview", dataset.source))
shown = {
    "Training": (f"{dataset.n_train:,}", kind),
    "Test": (f"{dataset.n_test:,}", kind),
    "Classes": (f"{len(dataset.classes):,}", "to tell apart"),
}
if tests.has_predictions:
    right, known = tests.table["correct"], training.table["correct"]
    checkpoints = study.checkpoints(algorithm)
    shown = {
        "Test accuracy": (f"{right.mean():.1%}", f"{right.sum():,} of {dataset.n_test:,} right"),
        "Wrong": (f"{(~right).sum():,}", f"test {kind}"),
        "Training accuracy": (
            f"{known.mean():.1%}",
            f"{(~known).sum():,} of {dataset.n_train:,} not learnt",
        ),
        "Checkpoints": (f"{checkpoints:,}", "whose mean decides"),
    }
figures(shown)

if method is None:
    # The watch ends with the next thing that can be shown, be it predictions or scores.
    predicted = tests.has_predictions
    building(
        "Influence appears as soon as it is scored"
        if predicted
        else "Accuracy and mistakes appear as soon as the checkpoints have spoken",
        lambda study: (
            has_scores(study, algorithm) or (not predicted and has_predictions(study, algorithm))
        ),
        algorithm,
    )

# --- what it mixes up, and how sure it is ------------------------------------------------------

if tests.has_predictions:
    mistakes, certainty = st.columns([0.55, 0.45], gap="large")
    with mistakes:
        heading("What is taken for what")
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
        with st.container(horizontal=True):
            if st.button(f"All {(~right).sum():,} mistakes", icon=":material/grid_view:"):
                st.switch_page(EXPLORE, query_params=location.parameters(result="wrong"))
            if st.button("The most confident mistake", disabled=bool(right.all())):
                wrong = tests.table[~right.astype(bool)]
                worst = str(wrong.nsmallest(1, "margin")["id"].iloc[0])
                query = location.parameters(test=worst, result="wrong")
                st.switch_page(EXPLAIN, query_params=query)
    with certainty:
        heading("How sure it is")
        margin = tests.table["margin"].to_numpy()
        reach = max(1.0, float(np.ceil(np.quantile(np.abs(margin), 0.995))))
        st.html(
            histogram(
                "Margin of the true label",
                "Log-odds of the true label, mean over checkpoints. Above 0 it is more likely than "
                "all others together; the last columns hold what lies beyond.",
                [
                    Series("correct", margin[right], "good"),
                    Series("wrong", margin[~right], "wrong"),
                ],
                np.linspace(-reach, reach, BINS + 1),
                (f"−{reach:g}", "0", f"+{reach:g}"),
            )
        )
        if method is not None:
            weight = weights(study, algorithm, method)
            some = weight.total[weight.total > 0]
            if len(some) > 1 and some.min() < some.max():
                least, largest = float(np.quantile(some, 0.01)), float(some.max())
                percent = weight.order[: max(1, len(weight.order) // 100)]
                heaviest = weight.total[percent].sum() / some.sum()
                st.html(
                    histogram(
                        "Influence of the training examples",
                        "Sum of |influence| over all test predictions, on a logarithmic axis. The "
                        f"heaviest 1% carry {heaviest:.0%} of it all.",
                        [Series("training examples", weight.total)],
                        np.geomspace(least, largest, BINS + 1),
                        (f"≤ {least:.2g}", "logarithmic", f"{largest:.2g}"),
                    )
                )

# --- what weighs most, and how far to trust it -------------------------------------------------

if method is not None:
    weight = weights(study, algorithm, method)
    group = Group(
        "Most influential training data",
        weight_cards(training, weight.order[:HEAVIEST], weight, location),
        title=f"Most influential training {kind}",
        words="Largest sum of influence, helping and hurting, over all test predictions; a "
        "prediction with larger scores weighs more.",
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

trusted, data = st.columns([0.55, 0.45], gap="large")
with trusted:
    heading("How far the scores can be trusted")
    if method is not None:
        st.html(full_quality_badge(badge(study, algorithm, method)))
        link_to_quality()
    else:
        st.html('<p class="dl-aside">Method, checkpoints and quality stand here once scored.</p>')
with data:
    heading("Data")
    if dataset.warnings:
        entries = "".join(f"<li>{escape(line)}</li>" for line in dataset.warnings)
        st.html(f'<ul class="dl-list">{entries}</ul>')
    else:
        st.html('<p class="dl-aside">Reading the data gave no warning.</p>')
