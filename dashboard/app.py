"""Entry point of the dashboard: style, navigation and the header above every page."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.location import (
    BRITTLE,
    COMPARE,
    EXPLAIN,
    EXPLORE,
    JOBS,
    LIVE,
    MAP,
    OVERVIEW,
    PROVENANCE,
    QUALITY,
    TRAINING,
    TRAINING_SET,
    UNLEARN,
    WHAT_IF,
    announce,
    read_location,
)
from dashboard.parts.layout.messages import notice
from dashboard.parts.layout.sign_in import sign_in
from dashboard.parts.layout.study_header import context
from dashboard.read.studies import open_study
from engine.store.errors import DataloupeError

HERE = Path(__file__).parent
LIVE_METHOD = "TRAK, live"

st.set_page_config(page_title="Dataloupe", page_icon=HERE / "icon.svg", layout="wide")
for sheet in ("page", "figures", "charts", "verdicts", "texts"):
    st.html(HERE / "style" / f"{sheet}.css")
st.logo(HERE / "logo.svg", size="large")
page = st.navigation(
    [
        st.Page(
            OVERVIEW,
            title="Overview",
            icon=":material/monitoring:",
            default=True,
            help="How good the predictions are, the most influential data, quality of the scores.",
        ),
        st.Page(
            EXPLORE,
            title="Explore",
            icon=":material/grid_view:",
            help="All test examples, filtered by label and prediction.",
        ),
        st.Page(
            EXPLAIN,
            title="Explain",
            icon=":material/compare_arrows:",
            help="One prediction, and the training examples that support and oppose it.",
        ),
        st.Page(
            TRAINING_SET,
            title="Training set",
            icon=":material/apps:",
            url_path="training-set",
            help="All training examples.",
        ),
        st.Page(
            TRAINING,
            TRAINING_SET,
            title="Training",
            icon=":material/model_training:",
            help="One training example, and the predictions it helps and hurts.",
        ),
        st.Page(
            BRITTLE,
            title="Brittle",
            icon=":material/heart_broken:",
            help="Predictions that depend on a few training examples, verified by retraining.",
        ),
        st.Page(
            MAP,
            title="Map",
            icon=":material/scatter_plot:",
            help="Training and test examples in 2-D, by their influence on predictions.",
        ),
        st.Page(
            WHAT_IF,
            title="What if",
            icon=":material/content_cut:",
            url_path="what-if",
            help="Remove training examples: the predicted effect, verified by retraining.",
        ),
        st.Page(
            UNLEARN,
            title="Unlearn",
            icon=":material/ink_eraser:",
            help="Make a model forget training examples, and audit it against real retrains.",
        ),
        st.Page(
            COMPARE,
            title="Compare",
            icon=":material/difference:",
            help="Two learning algorithms: which training data each relies on, and why.",
        ),
        st.Page(
            LIVE,
            title="Live",
            icon=":material/bolt:",
            help="Your own example: its prediction, and the training data behind it.",
        ),
        st.Page(
            QUALITY,
            title="Quality",
            icon=":material/verified_user:",
            help="How far the scores can be trusted, and what they can be used for.",
        ),
        st.Page(
            JOBS,
            title="Jobs",
            icon=":material/pending_actions:",
            help="Long-running work: progress, remaining time and results.",
        ),
        st.Page(
            PROVENANCE,
            title="Provenance",
            icon=":material/fingerprint:",
            help="Data, code and settings of the study, and whether its files are intact.",
        ),
    ],
    position="top",
)

try:
    sign_in()
    study = open_study()
    location = read_location(study)
    announce(location)
    context(study, location, LIVE_METHOD if page.url_path == "live" else "")
    page.run()
except DataloupeError as error:
    notice("This study cannot be shown as it is", str(error), kind="error")
