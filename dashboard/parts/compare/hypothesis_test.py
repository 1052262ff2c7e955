"""Test a hypothesis: transform test examples, and measure the effect on both algorithms."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import streamlit as st

from dashboard.names import short
from dashboard.parts.charts.interval_bars import Bar, intervals
from dashboard.parts.controls.uploader import uploader
from dashboard.parts.jobs.job_panel import job_panel
from dashboard.parts.jobs.submit_button import job_button, pop_message
from dashboard.parts.layout.blocks import aside, heading, table
from dashboard.parts.text.changed_texts import changed_texts, text_options
from dashboard.read.comparisons import hypotheses
from dashboard.read.picture_urls import data_uri
from dashboard.read.upload_trials import texture
from dashboard.server.uploaded_files import content_of
from engine.applications.modeldiff.changed_examples import are_texts, offered, title_of
from engine.applications.modeldiff.effect_estimates import most_different
from engine.applications.modeldiff.hypothesis import INTENSITIES
from engine.applications.modeldiff.significance import LEVEL
from engine.applications.modeldiff.text_transformations import missing_options
from engine.applications.modeldiff.transformations import TRANSFORMATIONS, apply
from engine.attribution.evaluation.quality import Measured
from engine.running.jobs.queue import Job, jobs
from engine.store.errors import DataloupeError
from engine.store.quantities import CHANGE, EFFECT, P_VALUE
from engine.store.rows import evenly_spread
from engine.study.capabilities import has, missing
from engine.study.examples import read_stacked_arrays
from engine.study.reader import StudyReader

ONE_CHECKPOINT = "one checkpoint, which does not show the randomness of training"
KIND = "hypothesis"
STRIP = 8
SIDE = 84
TEXTURE_MIB = 5
MOST_EXAMPLES = 2_000
"""The most examples a hypothesis is tested on; from more, an evenly spread sample."""
WORDS = {
    "row": "Distance from the top",
    "column": "Distance from the left",
    "size": "Size",
    "spacing": "Spacing",
    "kind": "Pattern",
    "colour": "Color",
    "darker": "Darker",
}


def hypothesis(study: StudyReader, about: dict[str, Any], direction: dict[str, Any] | None) -> None:
    """Choose a transformation, preview it, and measure its effect.

    Args:
        direction: The direction shown; the preview uses its test examples.
    """
    if not (has(study, "pictures") or has(study, "texts")):
        aside("Transformations apply to pictures and texts, and this study has neither.")
        return
    if reason := missing(study, "classes"):
        aside(f"The effect of a transformation is measured on a class. {reason}")
        return
    texts = are_texts(study)
    with st.container(key="hypothesis"):
        left, right = st.columns([0.36, 0.64], gap="large")
    with left:
        name = st.selectbox(
            "Transformation",
            offered(study),
            format_func=title_of,
            key="transformation",
        )
        intensity = st.slider("Intensity", 0.0, 1.0, 1.0, 0.05, key="intensity")
        if texts:
            sent = options = text_options(name)
        else:
            options, sent = _options(study, name, tuple(study.dataset.encoding["shape"]))
    lacking = bool(texts and missing_options(name, options))
    with right:
        rows = direction["tests"][:STRIP] if direction else list(range(STRIP))
        rows = [row for row in rows if row < study.dataset.n_test]
        try:
            shown = changed_texts if texts else strip
            st.html(shown(study, name, 0.0 if lacking else intensity, options, rows))
        except DataloupeError as error:
            aside(str(error))
        which = f" of direction {direction['number'] + 1}" if direction else ""
        aside(
            f"Test examples{which}: the originals above, transformed below. The average treatment "
            "effect (ATE) is the mean change of the true label's probability and of its margin."
        )
        tests = evenly_spread(study.dataset.n_test, MOST_EXAMPLES).tolist()
        every = None if len(tests) == study.dataset.n_test else tests
        common = {"comparison": about["id"], "rows": every}
        one = {"names": [name], "options": {name: sent} if sent else {}}
        title = title_of(name)
        with st.container(horizontal=True):
            job_button(
                "Measure on A and B",
                study,
                KIND,
                common | one | {"intensities": _intensities(intensity)},
                f"Test the hypothesis: {title}",
                icon=":material/science:",
                type="primary",
                key="measure",
                disabled=intensity == 0 or lacking,
                help="Write the words first" if lacking else None,
            )
            job_button(
                "Try all",
                study,
                KIND,
                common | ({"options": {name: sent}} if sent else {}),
                "Try all transformations",
                icon=":material/playlist_play:",
                key="try_all",
                help="Every transformation at three intensities, ranked by how much the effects "
                "on A and B differ",
            )
        if message := pop_message(KIND):
            st.html(f'<p class="dl-result" data-kind="wrong" role="alert">{escape(message)}</p>')
        running = _latest(study, about["id"])
        if running is not None and running.status != "done":
            job_panel(study, running.id)
    results(study, about)


def _intensities(chosen: float) -> list[float]:
    """A third, two thirds and all of the chosen intensity, to show whether the effect grows."""
    return [round(chosen * share, 3) for share in (1 / 3, 2 / 3, 1.0)]


def _options(
    study: StudyReader, name: str, shape: tuple[int, int, int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Show widgets for the options: (options for `apply`, options for the job)."""
    options: dict[str, Any] = {}
    sent: dict[str, Any] = {}
    for option, default in TRANSFORMATIONS[name].options.items():
        key, words = f"option_{name}_{option}", WORDS.get(option, option.capitalize())
        if option == "texture":
            file = uploader(
                "Your own picture as the texture",
                key=key,
                megabytes=TEXTURE_MIB,
                type=["png", "jpg", "jpeg", "webp", "bmp", "gif"],
            )
            if file is not None and file.size <= TEXTURE_MIB * 2**20:
                try:
                    content = content_of(file)
                    options[option] = texture(content, shape, study)
                    sent[option] = base64.b64encode(content).decode()
                except DataloupeError as error:
                    st.html(
                        f'<p class="dl-result" data-kind="wrong" role="alert">'
                        f"{escape(str(error))}</p>"
                    )
            continue
        if option == "colour":
            chosen = st.color_picker(words, "#{:02x}{:02x}{:02x}".format(*default), key=key)
            value: Any = [int(chosen[at : at + 2], 16) for at in (1, 3, 5)]
        elif option == "kind":
            value = st.segmented_control(
                words, ["chequered", "plain"], default=default, required=True, key=key
            )
        elif isinstance(default, bool):
            value = st.toggle(words, default, key=key)
        elif isinstance(default, float):
            value = st.slider(words, 0.0, 1.0, default, 0.02, key=key)
        else:  # A seed needs no widget.
            continue
        options[option] = value
        if value != (list(default) if isinstance(default, tuple) else default):
            sent[option] = value
    return options, sent


def strip(
    study: StudyReader, name: str, intensity: float, options: Mapping[str, Any], rows: list[int]
) -> str:
    """HTML of some test pictures, each with its transformed version below."""
    before = np.asarray(read_stacked_arrays(study, "test")["input"][np.array(rows, np.int64)])
    after = apply(name, before, intensity, options)
    table_ = study.table("test")
    items = []
    for row, one, other in zip(rows, before, after, strict=True):
        label = escape(short(table_["label"].iloc[row]))
        items.append(
            f'<figure><img src="{data_uri(one)}" alt="{label}, original">'
            f'<img src="{data_uri(other)}" alt="{label}, transformed">'
            f"<figcaption>{label}</figcaption></figure>"
        )
    return f'<div class="dl-strip">{"".join(items)}</div>'


def _latest(study: StudyReader, comparison: str) -> Job | None:
    """The newest test of this comparison."""
    return next(
        (
            one
            for one in jobs(study.root, newest=50)
            if one.kind == KIND and one.parameters["comparison"] == comparison
        ),
        None,
    )


# --- results -------------------------------------------------------------------------------------


def results(study: StudyReader, about: dict[str, Any]) -> None:
    """Show all results, newest first."""
    kept = hypotheses(study, about["id"])
    heading("Results")
    if not kept:
        aside("None yet.")
        return
    shown = st.selectbox(
        "Test",
        kept,
        format_func=lambda one: _title(one),
        key="shown_hypothesis",
        label_visibility="collapsed",
    )
    tested = shown["tested"]
    names = short(about["a"]["name"]), short(about["b"]["name"])
    if len(tested) > 1:
        _ranked(tested, names)
    else:
        _in_full(tested[0], names)


def _title(one: dict[str, Any]) -> str:
    tested = one["tested"]
    name = title_of(tested[0]["name"]) if len(tested) == 1 else f"All {len(tested)}, ranked"
    return f"{name} · {one['when'][:16].replace('T', ' ')} UTC"


def sentence(tested: dict[str, Any], names: tuple[str, str]) -> str:
    """The result of a test as text, at the intensity where the algorithms differ most."""
    effects, adjusted = tested["effects"], tested["adjusted"]
    place = most_different(tested)
    effect = effects[place]
    ates = [EFFECT.text(effect[key]["probability"]["mean"]) for key in ("a", "b")]
    text = (
        f"At intensity {effect['intensity']:g}, the transformation changes the true label's "
        f"probability by {ates[0]} for {names[0]} and by {ates[1]} for {names[1]}."
    )
    if adjusted[place] is None:
        return f"{text} The difference is not tested: {ONE_CHECKPOINT}."
    if adjusted[place] < LEVEL:
        return f"{text} The difference is significant (p = {P_VALUE.text(adjusted[place])})."
    return f"{text} The difference is not significant (p = {P_VALUE.text(adjusted[place])})."


def _in_full(tested: dict[str, Any], names: tuple[str, str]) -> None:
    st.html(f'<p class="dl-says">{escape(sentence(tested, names))}</p>')
    for output, heading_, quantity in (
        ("probability", "Change of the true label's probability", EFFECT),
        ("margin", "Change of the margin", CHANGE),
    ):
        bars = [
            Bar(
                f"{name}, intensity {effect['intensity']:g}",
                Measured(**effect[key][output]),
                baseline=key == "difference",
            )
            for effect in tested["effects"]
            for key, name in (("a", names[0]), ("b", names[1]), ("difference", "A minus B"))
        ]
        st.html(
            f'<h3 class="dl-heading">{heading_}</h3>'
            + intervals(bars, heading_, changes=True, quantity=quantity)
        )
    counts = " and ".join(f"{count:,}" for count in tested["checkpoints"])
    alone = f" With {ONE_CHECKPOINT}, intervals are over examples only."
    aside(
        f"{tested['pictures']:,} test examples, {counts} checkpoints; 95% intervals over both."
        + (alone if 1 in tested["checkpoints"] else "")
    )


def _ranked(tested: list[dict[str, Any]], names: tuple[str, str]) -> None:
    """Show a table: the smallest plausible difference of each, with p corrected for all."""
    rows = []
    for one in tested:
        effects, adjusted = one["effects"], one["adjusted"]
        place = most_different(one)
        effect = effects[place]
        ates = [
            EFFECT.interval(Measured(**effect[key]["probability"]))
            for key in ("a", "b", "difference")
        ]
        p = adjusted[place]
        verdict = "not tested" if p is None else "differs" if p < LEVEL else "not significant"
        rows.append(
            [
                title_of(one["name"]),
                verdict,
                EFFECT.text(one["strength"]),
                f"{effect['intensity']:g}",
                *ates,
                "–" if p is None else P_VALUE.text(p),
            ]
        )
    heads = (
        "Transformation",
        "Verdict",
        "At least",
        "Intensity",
        f"ATE of {names[0]}",
        f"ATE of {names[1]}",
        "Difference",
        "p",
    )
    table("Transformations, largest difference first", heads, rows)
    aside(
        f"On {tested[0]['pictures']:,} test examples, {len(INTENSITIES)} intensities each; p with "
        "Holm correction over all tests. “At least”: the end of the difference's interval that is "
        "nearer to 0."
    )
