"""The measured quality of a method's scores, and their badge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine import store
from engine.attribution.evaluation.quality import TWO_SIDED_95, Measured, Quality
from engine.attribution.evaluation.verdict import ceiling_text
from engine.store import layout
from engine.store.errors import StoreError
from engine.store.layout import TRAK
from engine.store.records import Badge
from engine.store.text import counted
from engine.study.live_and_maps import read_live
from engine.study.methods import method_title, read_quality
from engine.study.names import resolve_algorithm, resolve_method
from engine.study.progress import stage_progress
from engine.study.reader import StudyReader


def read_badge(
    study: StudyReader, algorithm: str | None = None, method: str | None = None
) -> Badge:
    """The badge of a method's scores: how they were computed, and their measured quality."""
    algorithm = resolve_algorithm(study, algorithm)
    method = resolve_method(study, algorithm, method)
    search = store.read_json(layout.search_file(study.root, algorithm, method))
    found = {
        "index": search["kind"],
        "recall": search["recall"],
        "recall_at": search["recall_at"],
        "output": study.dataset.output,
    }
    quality = read_quality(study, algorithm)
    if quality is not None and method in quality.methods:
        measured = quality.methods[method]
        found |= {
            "lds": measured.lds.mean,
            "lds_low": measured.lds.low,
            "lds_high": measured.lds.high,
            "ceiling_text": ceiling_text(quality, method),
        }
        if quality.ceiling is not None:
            found |= {
                "ceiling": quality.ceiling.mean,
                "ceiling_low": quality.ceiling.low,
                "ceiling_high": quality.ceiling.high,
            }
        if measured.units is not None and measured.effects is not None:
            slope, effects = measured.units.slope.mean, measured.effects
            error = TWO_SIDED_95 * effects.covariance[1][1] ** 0.5
            found |= {
                "slope": slope * effects.chosen,
                "slope_low": slope * (effects.chosen - error),
                "slope_high": slope * (effects.chosen + error),
                "r_squared": measured.units.r_squared,
            }
    if method != TRAK:
        return Badge(
            **store.read_json(layout.method_file(study.root, algorithm, method))["badge"], **found
        )
    solver = store.read_json(layout.solver_file(study.root, algorithm))
    return Badge(
        method=method_title(study, algorithm, method),
        solver=solver["kind"],
        checkpoints=search["checkpoints"],
        wanted=study.uploads[algorithm].wanted if algorithm in study.uploads else 0,
        features=None if solver["kind"] == "dual-exact" else solver["proj_dim"],
        damping=solver["damping"],
        soft_threshold=solver.get("soft_threshold", 0.0),
        reason=solver["reason"],
        **found,
    )


def live_badge(study: StudyReader, algorithm: str, stored_output: bool) -> Badge:
    """The badge of scores that are computed live, from the checkpoints kept for that.

    They are not calibrated, and no LDS was measured for them: the badge shows that of the stored
    scores.

    Args:
        stored_output: Whether they are about the output whose scores are stored; otherwise the
            badge says which output the LDS was measured for.
    """
    stored, scoring = read_badge(study, algorithm, TRAK), read_live(study, algorithm).checkpoints
    return replace(
        stored,
        method=f"{stored.method}, live",
        checkpoints=scoring,
        reason=f"Computed live from {scoring} of {counted(stored.checkpoints or 0, 'checkpoint')}, "
        f"not calibrated. {stored.reason}",
        lds_of="" if stored_output else study.dataset.output,
        slope=None,
        slope_low=None,
        slope_high=None,
        r_squared=None,
    )


def require_quality(study: StudyReader, algorithm: str | None = None) -> Quality:
    """LDS and calibration of each method.

    Raises:
        StoreError: They are not measured; the message names what is missing.
    """
    algorithm = resolve_algorithm(study, algorithm)
    quality = read_quality(study, algorithm)
    if quality is not None:
        return quality
    build = f"`dataloupe build {study.root}`"
    steps = {step.stage: step for step in stage_progress(study) if step.algorithm == algorithm}
    runs = steps.get("bank")
    if runs is None:
        raise StoreError(
            f"The quality of {algorithm}'s scores is measured on models trained on random parts "
            "of the data, and there are none: add `[subset_runs]` with "
            f"`masks = 200` to {layout.spec_file(study.root)}, then {build}."
        )
    if not runs.complete:
        raise StoreError(
            f"The quality of {algorithm}'s scores is measured once all subset runs are finished "
            f"({runs.done:,} of {runs.total:,} so far). {build} trains the others."
        )
    raise StoreError(f"The quality of {algorithm}'s scores is not measured yet. Run {build}.")


def read_predicted_and_actual(
    study: StudyReader, algorithm: str | None = None, method: str | None = None
) -> dict[str, np.ndarray]:
    """Predicted and actual outputs of the test runs, memory-mapped float32 `[n_test, runs]`.

    `predicted`: calibrated outputs; `actual`: the runs' outputs; `deviation`, only if the method
    has intervals: its standard deviation for each output.
    """
    algorithm = resolve_algorithm(study, algorithm)
    path = layout.predicted_file(study.root, algorithm, resolve_method(study, algorithm, method))
    return store.read_tensors(path)


def read_lds_of_each(
    study: StudyReader, algorithm: str | None = None, method: str | None = None
) -> np.ndarray:
    """LDS of each test example, on the test runs: float64 `[n_test]`."""
    from engine.attribution.evaluation.lds import spearman

    outputs = read_predicted_and_actual(study, algorithm, method)
    return spearman(outputs["predicted"], outputs["actual"])


def read_own_lds(
    study: StudyReader, test: int, algorithm: str, method: str
) -> tuple[Measured, int] | None:
    """LDS of one test example with its interval, and the number of test runs; None if unmeasured.

    Args:
        test: Test row.
    """
    from engine.attribution.evaluation.lds import interval_of_one, spearman

    quality = read_quality(study, algorithm)
    if quality is None or method not in quality.methods:
        return None
    outputs = read_predicted_and_actual(study, algorithm, method)
    predicted, actual = (np.asarray(outputs[name][[test]]) for name in ("predicted", "actual"))
    runs = actual.shape[1]
    return interval_of_one(float(spearman(predicted, actual)[0]), runs), runs
