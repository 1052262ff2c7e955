"""A measured quality for synthetic studies: further methods, and what subset runs say of all.

Outcomes are drawn so that each method has about the LDS that it is given here; what is stored of
each is computed from them, so figures, points and classes agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from engine import store
from engine.api import Study
from engine.attribution.evaluation.effect_sizes import TYPICAL
from engine.attribution.evaluation.lds import spearman
from engine.attribution.evaluation.quality import (
    Calibration,
    Measured,
    MethodQuality,
    Point,
    Quality,
)
from engine.store import layout
from engine.store.layout import TRAK
from engine.study.score_matrices import read_score_matrix
from tests.builders.synthetic_study import write_scores

ALPHA = 0.5
CEILING = Measured(0.82, 0.78, 0.86)


@dataclass(frozen=True)
class Method:
    """A method of the synthetic study; `skill` is about its LDS."""

    title: str
    settings: str
    skill: float
    baseline: bool = False
    slope: float = 4.0
    deviates: bool = False


METHODS = {
    "hybrid": Method("TRAK + runs", "prior of 5 checkpoints, 120 runs", 0.45, deviates=True),
    TRAK: Method("TRAK", "5 checkpoints, dual-wide, λ 1.5", 0.31),
    "datamodel": Method("Datamodel", "lasso on 120 runs", 0.13),
    "gradient-dot": Method("Gradient dot product", "5 checkpoints", 0.06, baseline=True),
    "embedding": Method("Embedding similarity", "5 checkpoints", 0.02, baseline=True),
}


def write_quality(
    study: Study,
    algorithm: str = "cnn",
    masks: int = 200,
    seeds: int = 2,
    methods: tuple[str, ...] = tuple(METHODS),
    skill: float = 1.0,
    seed: int = 0,
) -> Study:
    """Give a complete study these methods and their quality on `masks` subset runs.

    Args:
        masks: Of the run bank, in fives.
        seeds: Runs of each test mask; with two or more there is a noise ceiling.
        skill: Factor on every method's LDS; 0 makes all of them chance.
    """
    generator = np.random.default_rng(seed)
    runs = masks // 5
    margin = study.predictions("test", algorithm)["output"].to_numpy()[:, None]
    labels = study.table("test")["label"].to_numpy()
    spread = generator.gamma(4.0, 0.2, size=margin.shape)
    luck = generator.normal(size=(len(margin), runs))
    actual = margin - 0.3 + spread * luck
    # Some classes are predicted better than others, the last one not at all.
    order = {label: place for place, label in enumerate(study.dataset.classes)}
    last = max(1, len(order) - 1)
    ease = np.array([[1.5 * (1 - order[label] / last)] for label in labels])
    found = {}
    for name in methods:
        method = METHODS[name]
        if name != TRAK and not method.baseline:
            _write_method(study, algorithm, name, method, generator)
        # Never quite 0, which would predict the same for all runs.
        right = np.clip(
            method.skill * skill * ease * generator.normal(1, 0.3, margin.shape), 0.01, 1
        )
        guess = right * luck + np.sqrt(1 - right**2) * generator.normal(size=luck.shape)
        predicted = margin - 0.3 + spread * right * guess
        deviation = spread * np.sqrt(1 - right**2)
        outputs = {"predicted": predicted, "actual": actual}
        if method.deviates:
            outputs["deviation"] = np.broadcast_to(deviation, actual.shape)
        if not method.baseline:
            path = layout.predicted_file(study.root, algorithm, name)
            arrays = {key: array.astype(np.float32) for key, array in outputs.items()}
            scores = read_score_matrix(study, algorithm, name)
            rows = scores.rows(np.arange(scores.n_test))
            arrays["mean_square"] = np.square(rows, dtype=np.float64).mean(axis=1)
            store.write_tensors(path, arrays, "synthetic")
        found[name] = _measure(method, outputs, labels)
    ranked = dict(sorted(found.items(), key=lambda item: -item[1].lds.mean))
    shown = [name for name in ranked if not ranked[name].baseline]
    quality = Quality(
        masks={"fit": masks - 2 * runs, "validation": runs, "test": runs},
        seeds=seeds,
        alpha=ALPHA,
        output="margin",
        preferred=shown[0],
        methods=ranked,
        checkpoints=_curve(ranked, (1, 2, 3, 4, 5), (TRAK, "hybrid", "gradient-dot"), runs),
        runs=_curve(
            ranked, (masks // 8, masks // 4, masks // 2, masks), ("datamodel", "hybrid"), runs
        ),
        tuning=[
            {"damping": d, "tempering": t, "soft_threshold": s, "lds": 0.31 * skill - penalty}
            for d, t, s, penalty in (
                (1.5, 0.5, 0.0, 0.0),
                (1.5, 0.5, 0.5, 0.008),
                (0.5, 0.5, 0.0, 0.012),
                (5.0, 0.5, 0.0, 0.02),
                (1.5, 1.0, 0.0, 0.071),
            )
        ]
        if TRAK in methods
        else [],
        ceiling=CEILING if seeds > 1 else None,
    )
    store.write_json(layout.quality_file(study.root, algorithm), quality.to_dict(), "synthetic")
    return Study.open(study.root)


def _write_method(
    study: Study, algorithm: str, name: str, method: Method, generator: np.random.Generator
) -> None:
    badge = {"method": method.title, "reason": f"Synthetic scores: {method.settings}.", "runs": 120}
    store.write_json(layout.method_file(study.root, algorithm, name), {"badge": badge}, "synthetic")
    write_scores(study, algorithm, 20, generator, name)


def _measure(method: Method, outputs: dict[str, np.ndarray], labels: np.ndarray) -> MethodQuality:
    predicted, actual = outputs["predicted"], outputs["actual"]
    each = spearman(predicted, actual)
    runs = actual.shape[1]
    moved, came = (values - values.mean(axis=1, keepdims=True) for values in (predicted, actual))
    r_squared = 1 - ((came - moved) ** 2).sum() / (came**2).sum()
    coverage = None
    if "deviation" in outputs:
        reach = NormalDist().inv_cdf(0.95) * outputs["deviation"]
        coverage = float((np.abs(actual - predicted) <= reach).mean())
    slope = Measured(method.slope, 0.88 * method.slope, 1.13 * method.slope)
    return MethodQuality(
        title=method.title,
        settings=method.settings,
        baseline=method.baseline,
        lds=_with_interval(each, runs),
        validation_lds=float(each.mean() + 0.01),
        by_group={
            str(label): _with_interval(each[labels == label], runs, 1.8)
            for label in sorted(set(labels))
        },
        calibration=Calibration(slope, float(r_squared)) if r_squared > 0 else None,
        effects=replace(TYPICAL, removals=24) if r_squared > 0 else None,
        coverage=coverage,
    )


def _with_interval(each: np.ndarray, runs: int, wider: float = 1.0) -> Measured:
    mean, reach = float(each.mean()), wider * 0.5 / np.sqrt(runs)
    return Measured(mean, mean - reach, mean + reach)


def _curve(
    methods: dict[str, MethodQuality], steps: tuple[int, ...], names: tuple[str, ...], runs: int
) -> list[Point]:
    """From about half of a method's LDS up to all of it."""
    points = []
    for name in names:
        if name in methods:
            for step in steps:
                mean = methods[name].lds.mean * (0.5 + 0.5 * np.sqrt(step / steps[-1]))
                reach = 0.5 / np.sqrt(runs)
                points.append(Point(name, step, Measured(mean, mean - reach, mean + reach)))
    return points
