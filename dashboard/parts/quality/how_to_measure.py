"""Help for studies without subset runs: what they are, what to add, and what it costs."""

from __future__ import annotations

import streamlit as st

from dashboard.parts.jobs.cost import cost_words
from dashboard.parts.layout.blocks import aside, heading
from dashboard.read.columns import output_name
from engine.store.layout import TRAK
from engine.store.quantities import SHARE
from engine.study.methods import ranked_methods
from engine.study.reader import StudyReader

MASKS = 200
RUNS = MASKS + MASKS // 5
"""Masks that measure quality, one in five, are trained on twice."""
ALPHA = 0.5


def unmeasured(study: StudyReader, algorithm: str, name: str) -> None:
    """Show how the quality of the scores by `name` can be measured."""
    if algorithm in study.uploads:
        heading("The quality of these scores is not measured")
        aside(
            f"{study.uploads[algorithm].name} was uploaded as finished checkpoints. Measuring the "
            "quality of scores requires models trained on random subsets of the data, and an "
            "upload has no training recipe. Treat the order of its scores as a hint, and ignore "
            "their size."
        )
        return
    output = output_name(study.dataset)
    spec = study.spec.algorithms[algorithm]
    imported = TRAK not in ranked_methods(study, algorithm)
    left, right = st.columns(2, gap="large")
    with left:
        heading("The quality of these scores is not measured yet")
        if imported:
            aside(f"Scores by {name} were imported without a measured quality.")
        aside(
            "Scores predict the outputs of models trained on other data. To test them, train such "
            f"models: a subset run is the algorithm trained on a random {ALPHA:.0%} of the "
            "training data. The LDS measures how well scores predict the outputs of these models, "
            f"and the slope between the two converts a score to a change of the {output}. Until "
            "then, treat the order of the scores as a hint, and ignore their size."
        )
        heading("What to do")
        if spec.weights:
            aside(
                f"Learning algorithm {algorithm} uses finished weights, but subset runs train "
                "models. Add the recipe that made the weights (epochs, batch_size, optimizer, "
                f"learning_rate, …) under [algorithms.{algorithm}]. Then:"
            )
        aside("Add this to study.toml and build again:")
        st.code(f"[subset_runs]\nmasks = {MASKS}", language=None)
        st.code(f"dataloupe build {study.root}", language=None, wrap_lines=True)
        aside("You can also import subset runs made with other tools: dataloupe import bank.")
    with right:
        heading("What it costs")
        aside(_cost(study, algorithm))
        aside(
            "Each finished run is saved: you can stop and resume at any time, and raise masks "
            "later; existing runs are reused. Of every five masks, three are used to fit, one to "
            "choose between methods, and one to measure quality. That one is trained on twice, "
            f"which shows how much of an outcome is chance: {MASKS} masks are {RUNS} runs. Start "
            "with 50 for a first, wide interval; a few hundred also improve scores, as datamodels "
            "are fitted on them."
        )


def _cost(study: StudyReader, algorithm: str) -> str:
    """The time that the runs take."""
    time = cost_words(study, algorithm, RUNS * ALPHA)
    return f"{RUNS} models on {SHARE.text(ALPHA)} of the data: {time} here."
