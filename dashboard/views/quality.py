"""Quality: how far scores can be trusted, measured on models trained on subsets of the data."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboard.location import EXPLAIN, go, read_location
from dashboard.names import short
from dashboard.parts.charts.histogram import Series, histogram
from dashboard.parts.charts.interval_bars import Bar, intervals
from dashboard.parts.charts.line_chart import Line, curves
from dashboard.parts.charts.predicted_vs_actual import DOTS, POINTS, agreement, show
from dashboard.parts.controls.copy_link_button import copy_link
from dashboard.parts.layout.blocks import aside, facts, figures, heading, table
from dashboard.parts.layout.build_progress import building
from dashboard.parts.layout.messages import warning
from dashboard.parts.layout.page_title import title
from dashboard.parts.quality.how_to_measure import unmeasured
from dashboard.parts.quality.verdict_list import verdict_list
from dashboard.parts.removal.verify_by_retraining import verified
from dashboard.read.columns import output_noun
from dashboard.read.studies import (
    badge,
    examples,
    kept_verifications,
    lds_of_each,
    open_study,
    requested_row,
    typed_id,
)
from engine.attribution.evaluation.quality import MethodQuality, Point, Quality
from engine.attribution.evaluation.verdict import ceiling_text, chance, few_runs, verdict
from engine.store.quantities import LDS, SHARE, SLOPE
from engine.store.text import counted
from engine.study.measured_quality import read_predicted_and_actual
from engine.study.methods import has_scores, read_quality
from engine.study.progress import stage_progress

BINS = 32
GROUPS_SHOWN = 24

study = open_study()
location = read_location(study)
algorithm, method = location.algorithm, location.method

# --- nothing is measured yet -------------------------------------------------------------------

if method is None:
    st.html(title("Quality", "no scores yet"))
    building(
        "Quality appears here as soon as the scores are computed and measured",
        lambda study: study.has_data and has_scores(study, algorithm),
        algorithm,
    )
    st.stop()

quality = read_quality(study, algorithm)
bank = next(
    (step for step in stage_progress(study) if (step.stage, step.algorithm) == ("bank", algorithm)),
    None,
)
name = badge(study, algorithm, method).method

if quality is None:
    st.html(title("Quality", "not measured yet"))
    if bank is None:
        unmeasured(study, algorithm, name)
    else:
        building(
            "Quality appears here when the subset runs are done",
            lambda study: read_quality(study, algorithm) is not None,
            algorithm,
        )
    st.stop()

tests = examples(study, "test", algorithm)
row, hint = requested_row(study, "test", location.test)


def id_of(row: int) -> str:
    """Id of a test example."""
    return str(tests.table["id"].iloc[row])


def tag_of(one: MethodQuality, preferred: bool) -> str:
    """The tags shown next to a method."""
    if one.baseline:
        return "baseline"
    chance = "" if one.beats_chance else "no better than chance"
    return " · ".join(tag for tag in ("preferred" if preferred else "", chance) if tag)


def bars_of_methods(quality: Quality) -> list[Bar]:
    """All methods, best first; before them what perfect predictions would reach."""
    perfect = []
    if quality.ceiling is not None and quality.ceiling.low > 0:
        perfect = [Bar("Noise ceiling", quality.ceiling, "perfect predictions", baseline=True)]
    return perfect + [
        Bar(one.title, one.lds, one.settings, tag_of(one, name == quality.preferred), one.baseline)
        for name, one in quality.methods.items()
    ]


def bars_of_groups(measured: MethodQuality) -> list[Bar]:
    """The groups, worst first."""
    worst_first = sorted(measured.by_group.items(), key=lambda item: item[1].mean)
    return [Bar(name, lds, tag="" if lds.low > 0 else "do not trust") for name, lds in worst_first]


def lines_of(points: list[Point], quality: Quality) -> list[Line]:
    """One line per method, in the same style in every chart."""
    lines = []
    for style, (name, one) in enumerate(quality.methods.items()):
        found = sorted((point.n, point.lds) for point in points if point.method == name)
        if found:
            lines.append(Line(one.title, found, style))
    return lines


def open_example(row: int) -> None:
    """Explain a test example."""
    st.switch_page(EXPLAIN, query_params=location.parameters(test=id_of(row)))


def show_typed() -> None:
    """Callback: show the points of the test example that was typed, or of all."""
    go(test=typed_id(study, "test", st.session_state["one_test"]))


def headline(quality: Quality, method: str) -> None:
    """The main figures of a method."""
    measured = quality.methods[method]
    lds, units = measured.lds, measured.units
    seeds = "one run each" if quality.seeds == 1 else f"{quality.seeds:,} runs each"
    ceiling, share = quality.ceiling, quality.share_of_ceiling(method)
    few = "few: intervals are wide" if few_runs(quality, method) else "not used for selection"
    shown = {
        "LDS": (LDS.text(lds.mean), LDS.range(lds.low, lds.high)),
    }
    if ceiling is not None and ceiling.low > 0:
        ends = LDS.range(ceiling.low, ceiling.high)
        reached = "" if share is None else f", {SHARE.text(share)} reached"
        shown["Noise ceiling"] = (LDS.text(ceiling.mean), f"{ends}{reached}")
    shown["Held-out masks"] = (f"{quality.masks['test']:,}", f"{seeds}, {few}")
    if units is None:
        shown["Unit"] = ("None", "scores are uncalibrated")
    else:
        ends = SLOPE.range(units.slope.low, units.slope.high)
        shown["Slope"] = (
            SLOPE.text(units.slope.mean),
            f"{ends}, {quality.output} per unit of score",
        )
        shown["Explained"] = (SHARE.text(units.r_squared), "of the variance of outcomes (R²)")
        effects = measured.effects
        if effects is not None:
            runs = counted(effects.removals, "removal run") if effects.removals else "typical sizes"
            shown["Full data"] = (
                f"× {SLOPE.text(effects.chosen)}",
                f"size of an effect of chosen examples there; ordinary ones "
                f"× {SLOPE.text(effects.ordinary)}; {runs}",
            )
    if measured.coverage is not None:
        shown["90% intervals"] = (SHARE.text(measured.coverage), "of outcomes lie within them")
    figures(shown)


def predicted_against_actual(
    of_each: np.ndarray, quality: Quality, measured: MethodQuality
) -> None:
    """Predicted and actual outputs of all test examples or of one, with controls to choose."""
    outputs = read_predicted_and_actual(study, algorithm, method)
    if location.test is not None and row is None:
        warning([f"There is no test example “{short(location.test)}”; all are shown.{hint}"])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.session_state["one_test"] = "" if row is None else id_of(row)
        st.text_input(
            "Test example, by id, or row as #17",
            placeholder="All",
            key="one_test",
            on_change=show_typed,
            width=220,
        )
        for text, place in (("Best predicted", of_each.argmax()), ("Worst", of_each.argmin())):
            st.button(text, on_click=go, kwargs={"test": id_of(int(place))}, key=text)
        if row is not None:
            st.button("All", on_click=go, kwargs={"test": None}, key="all")
            if st.button(f"Explain {short(id_of(row))}", icon=":material/arrow_forward:"):
                open_example(row)
    count, held_out = outputs["actual"].shape
    calibrated = measured.calibration is not None
    if row is None:
        caption = (
            f"Each point is one of {count:,} test examples in one of {held_out:,} held-out masks. "
            "Click one to explain its example."
        )
        if count * held_out > POINTS:
            caption = "Color: where many points are, on a logarithmic scale. " + caption
            caption += f" {DOTS:,} points are drawn, at random."
    else:
        caption = (
            f"Each point is one of {held_out:,} held-out masks. Their rank correlation is "
            f"{LDS.text(of_each[row])}."
        )
        if "deviation" in outputs:
            caption += " Bars are the method's 90% intervals."
    if calibrated:
        caption += " Points on the dashed line match the prediction."
    aside(caption)
    ids = tests.table["id"].astype(str).tolist()
    figure = agreement(outputs, ids, quality.output, row, calibrated)
    show(figure, f"Predicted against actual {quality.output}. {caption}", "agreement", open_example)


# --- what these scores are good for ------------------------------------------------------------

with st.container(horizontal=True, vertical_alignment="center"):
    st.html(title("Quality", f"how far scores by {short(name)} can be trusted"))
    st.space("stretch")
    copy_link("copy")

if bank is not None and not bank.complete:
    warning(
        [
            f"The run bank is growing: {bank.done:,} of {bank.total:,} runs are done. These "
            "figures use the runs that were done when they were measured."
        ]
    )

measured = quality.methods.get(method)
of_each = None if measured is None else lds_of_each(study, algorithm, method)
if measured is None:
    warning(
        [
            f"{name} was added after quality was measured. `dataloupe build {study.root}` "
            f"measures it; until then, prefer {quality.methods[quality.preferred].title}."
        ]
    )
else:
    headline(quality, method)

verdicts, compared = st.columns(2, gap="large")
with verdicts:
    heading("What these scores are good for")
    if measured is None:
        aside("Unknown: these scores were not measured.")
    else:
        st.html(verdict_list(verdict(quality, method, of_each)))
with compared:
    heading("LDS of every method")
    aside(
        f"Rank correlation between sums of scores and the outputs of models trained on random "
        f"{quality.alpha:.0%} subsets of the data, averaged over test examples: 1 is perfect, 0 is "
        "chance. The thin line is the 95% interval over test examples and runs. "
        + ("" if quality.ceiling is None else f"Noise ceiling {ceiling_text(quality)}")
    )
    here = None if measured is None else measured.title
    st.html(intervals(bars_of_methods(quality), "LDS of every method, best first", here))

    if of_each is not None:
        heading("LDS of each test example")
        bound = chance(quality.masks["test"])
        above = of_each > bound
        st.html(
            histogram(
                "Rank correlation over the held-out masks",
                f"Shuffled scores exceed {LDS.text(bound)} 1 time in 20. The correlation of a "
                "single test example is noisy: trust the shape, not one value.",
                [
                    Series("above chance", of_each[above], "good"),
                    Series("not above chance", of_each[~above], "chance"),
                ],
                np.linspace(-1, 1, BINS + 1),
                ("−1", "0", "+1"),
            )
        )

# --- by class, and predicted against actual ----------------------------------------------------

if measured is not None:
    points = st.container()
    bars = bars_of_groups(measured)
    if bars:
        of_groups, points = st.columns([0.38, 0.62], gap="large")
        with of_groups:
            heading("LDS of each class")
            if len(bars) > GROUPS_SHOWN:
                aside(f"The {GROUPS_SHOWN} worst of {len(bars):,} classes.")
            st.html(intervals(bars[:GROUPS_SHOWN], "LDS of each class, worst first"))
    with points:
        if of_each is not None:
            heading("Predicted against actual")
            predicted_against_actual(of_each, quality, measured)

# --- verified by retraining --------------------------------------------------------------------

heading("Verified by retraining")
verifications = [one for one in kept_verifications(study, algorithm) if one.method == method]
verified(study, verifications)

# --- what would improve the scores -------------------------------------------------------------

by_checkpoints, by_runs = lines_of(quality.checkpoints, quality), lines_of(quality.runs, quality)
if by_checkpoints or by_runs:
    first, second = st.columns(2, gap="large")
    with first:
        if by_checkpoints:
            st.html(
                curves(
                    "LDS with more checkpoints",
                    "Where a line is still rising, more checkpoints improve the scores.",
                    "checkpoints",
                    by_checkpoints,
                )
            )
    with second:
        if by_runs:
            st.html(
                curves(
                    "LDS with more subset runs",
                    "Where a line is still rising, more subset runs improve the scores.",
                    "subset runs used to fit",
                    by_runs,
                )
            )

# --- how quality was measured ------------------------------------------------------------------

tried, with_runs = st.columns(2, gap="large")
with with_runs:
    heading("The run bank")
    parts = quality.masks
    facts(
        {
            "Masks": f"{sum(parts.values()):,} random subsets of the training data",
            "Subset size": f"{quality.alpha:.0%} (α) of {study.dataset.n_train:,} examples",
            "Runs per test mask": f"{quality.seeds:,}, outputs averaged",
            "Fit": f"{parts['fit']:,} masks, to fit datamodels",
            "Validation": f"{parts['validation']:,} masks, to choose settings and the method",
            "Test": f"{parts['test']:,} masks, used only for the figures here",
            "Output": output_noun(study.dataset),
        }
    )
with tried:
    heading("TRAK settings tried")
    if quality.tuning:
        aside("On validation masks. The best is used; the figures above are on test masks.")
        best_first = sorted(quality.tuning, key=lambda tried: -tried["lds"])
        heads = ["Damping λ", "Tempering", "Soft threshold", "LDS, validation"]
        keys = ("damping", "tempering", "soft_threshold")
        table(
            "TRAK settings tried, best first",
            heads,
            [
                [*(f"{tried[key]:g}" for key in keys), LDS.text(tried["lds"])]
                for tried in best_first
            ],
        )
    else:
        aside("None: study.toml fixes them, or the scores were computed elsewhere.")
