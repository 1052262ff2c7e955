"""What a study without subset runs is told: what they are, what to add, and what it costs."""

from __future__ import annotations

import streamlit as st

from dashboard.parts.layout.blocks import aside, heading
from engine.store.layout import TRAK
from engine.study.methods import ranked_methods
from engine.study.models import has_predictions
from engine.study.reader import StudyReader

MASKS = 200
ALPHA = 0.5


def unmeasured(study: StudyReader, algorithm: str, name: str) -> None:
    """Say how the scores of `name` can be measured."""
    if algorithm in study.uploads:
        heading("Nobody knows how good these scores are")
        aside(
            f"{study.uploads[algorithm].name} was uploaded as finished checkpoints. Scores are "
            "measured on models trained on random parts of the data, and how to train this one was "
            "not given. Take the order of its scores for a hint, and their size for nothing."
        )
        return
    spec = study.spec.algorithms[algorithm]
    imported = TRAK not in ranked_methods(study, algorithm)
    left, right = st.columns(2, gap="large")
    with left:
        heading("Nobody knows yet how good these scores are")
        if imported:
            aside(f"Scores by {name} were made elsewhere and come without proof.")
        aside(
            "Scores say what a model would answer had it been trained on other data. So train "
            f"some: a subset run is the algorithm trained on a random {ALPHA:.0%} of the training "
            "data. How well scores predict the outputs of these models is their LDS, and the slope "
            "between the two turns a score into a change of the margin. Until then take the order "
            "of the scores for a hint, and their size for nothing."
        )
        heading("What to do")
        if spec.weights:
            aside(
                f"Learning algorithm {algorithm} names finished weights, and subset runs train "
                "models: give the recipe that made them (epochs, batch_size, optimizer, "
                f"learning_rate, …) under [algorithms.{algorithm}]. Then:"
            )
        aside("Add this to study.toml, and build again:")
        st.code(f"[subset_runs]\nmasks = {MASKS}", language=None)
        st.code(f"dataloupe build {study.root}", language=None, wrap_lines=True)
        aside("Subset runs that were made elsewhere can be brought in: dataloupe import bank.")
    with right:
        heading("What it costs")
        trained = has_predictions(study, algorithm) and not spec.weights
        aside(_cost(study.checkpoints(algorithm) if trained else 0))
        aside(
            "Runs are kept one by one: stop whenever you like, go on later, and raise masks at any "
            "time; what is there is reused. Of every five masks three are fitted on, one chooses "
            "between methods, one judges. 50 masks give a first, wide interval; some hundred also "
            "make better scores, as datamodels are fitted on them."
        )


def _cost(checkpoints: int) -> str:
    """What runs cost, beside the checkpoints that were trained here, if any were."""
    whole = MASKS * ALPHA
    words = f"{MASKS} models on {ALPHA:.0%} of the data take as long as {whole:.0f} on all of it"
    if not checkpoints:
        return f"{words}."
    times = whole / checkpoints
    return f"{words}: about {times:.0f} times what the {checkpoints:,} checkpoints here took."
