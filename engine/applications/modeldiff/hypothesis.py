"""Test a hypothesis: the effect of a transformation on the predictions of both algorithms.

The ATE of an algorithm is the mean change, over test examples and checkpoints, of the true label's
probability and of the margin when the examples are transformed. Intervals and p-values account for
both the examples and the checkpoints (`effect_estimates`). The functions that run models
(`measure`, `try_all`) need torch and run in a worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.applications.modeldiff.changed_examples import TestExamples, title_of
from engine.applications.modeldiff.changed_examples import tried as all_that_apply
from engine.applications.modeldiff.effect_estimates import estimate, estimate_difference
from engine.applications.modeldiff.significance import holm
from engine.attribution.evaluation.quality import Measured
from engine.build.tasks import task_of
from engine.running.progress import Report
from engine.store.errors import DataloupeError
from engine.study.capabilities import has, require
from engine.study.reader import StudyReader

OUTPUTS = ("probability", "margin")
INTENSITIES = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Effect:
    """The effect of a transformation at one intensity.

    Attributes:
        a, b: ATE of each algorithm with its 95 % interval, by output: `probability` of the true
            label, and `margin`.
        difference: ATE of A minus that of B.
        p: Two-sided p-value of no difference, by output; None where either algorithm has a single
            checkpoint, which says nothing about the randomness of training.
    """

    intensity: float
    a: dict[str, Measured]
    b: dict[str, Measured]
    difference: dict[str, Measured]
    p: dict[str, float | None]


@dataclass(frozen=True)
class Tested:
    """A transformation at several intensities.

    Attributes:
        name: Name of the transformation.
        options: Options that differ from the default.
        pictures: Number of test examples it was measured on.
        checkpoints: Number of checkpoints of A and of B.
        adjusted: By intensity, p-value of the probabilities' difference after Holm's correction
            over everything that was tried together; None where there is none.
        strength: Smallest difference between A and B that the data support: the end nearest to 0 of
            the interval of the difference in ATE on p_y, at the intensity where that is largest; 0
            if all intervals contain 0, or there is no p-value.
    """

    name: str
    options: dict[str, Any]
    pictures: int
    checkpoints: tuple[int, int]
    effects: list[Effect]
    adjusted: list[float | None]
    strength: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    study: StudyReader,
    a: str,
    b: str,
    name: str,
    options: Mapping[str, Any] | None = None,
    intensities: Sequence[float] = INTENSITIES,
    rows: Sequence[int] | None = None,
) -> Tested:
    """Measure the effect of one transformation on both algorithms' predictions.

    Args:
        rows: Test rows; None: all.
    """
    (found,) = _test(study, a, b, {name: dict(options or {})}, intensities, rows, _silent)
    return found


def try_all(
    study: StudyReader,
    a: str,
    b: str,
    intensities: Sequence[float] = INTENSITIES,
    rows: Sequence[int] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    report: Report | None = None,
    names: Sequence[str] | None = None,
) -> list[Tested]:
    """Measure every built-in transformation, largest difference between A and B first.

    Those that need an option are tried only where it is given. p-values are adjusted by Holm's
    correction.

    Args:
        options: Options that differ from the default, by name of the transformation.
        report: Called with (done, total, what).
        names: Only these transformations; None: all that apply.
    """
    names = names or all_that_apply(study, options or {})
    tried = {name: dict((options or {}).get(name, {})) for name in names}
    found = _test(study, a, b, tried, intensities, rows, report or _silent)
    return sorted(found, key=lambda one: -one.strength)


def _silent(done: int, total: int, what: str) -> None:
    """Report nothing."""


def _test(
    study: StudyReader,
    a: str,
    b: str,
    tried: Mapping[str, Mapping[str, Any]],
    intensities: Sequence[float],
    rows: Sequence[int] | None,
    report: Report,
) -> list[Tested]:
    from engine.build.models import load_checkpoint

    if not (has(study, "pictures") or has(study, "texts")):
        raise DataloupeError("Transformations need pictures or texts, and this study has none.")
    require(study, "classes", "The effect of a transformation on the true label's probability")
    chosen = np.arange(study.dataset.n_test) if rows is None else np.asarray(rows)
    if not len(chosen) or len(intensities) < 1:
        raise DataloupeError("A hypothesis needs at least one example and one intensity.")
    examples = TestExamples.read(study, chosen)
    models = {
        algorithm: [
            load_checkpoint(study, algorithm, m, "cpu") for m in range(study.checkpoints(algorithm))
        ]
        for algorithm in (a, b)
    }
    before = {name: _outputs(study, models[name], examples.arrays) for name in models}
    total = len(tried) * len(intensities)
    effects: dict[str, list[Effect]] = {}
    strengths: dict[str, float] = {}
    for name, options in tried.items():
        for intensity in intensities:
            done = sum(map(len, effects.values()))
            report(done, total, f"Trying {title_of(name).lower()}")
            changed = examples.changed(name, intensity, options)
            after = {n: _outputs(study, models[n], changed) for n in models}
            changes = [{key: after[n][key] - before[n][key] for key in OUTPUTS} for n in (a, b)]
            effect, strength = _effect(intensity, *changes)
            effects.setdefault(name, []).append(effect)
            strengths[name] = max(strengths.get(name, 0.0), strength)
    report(total, total, "Done")
    p_values = [effect.p["probability"] for several in effects.values() for effect in several]
    known = iter(holm([p for p in p_values if p is not None]))
    adjusted = [None if p is None else next(known) for p in p_values]
    results = []
    for number, (name, several) in enumerate(effects.items()):
        mine = slice(number * len(intensities), (number + 1) * len(intensities))
        counts = len(models[a]), len(models[b])
        results.append(
            Tested(
                name=name,
                options=_plain(tried[name]),
                pictures=len(chosen),
                checkpoints=counts,
                effects=several,
                adjusted=adjusted[mine],
                strength=strengths[name],
            )
        )
    return results


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON can hold them; a texture becomes the text `yours`."""
    return {k: "yours" if isinstance(v, np.ndarray) else v for k, v in options.items()}


def _outputs(
    study: StudyReader, models: Sequence[Any], arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """`probability` of the true label and `margin`, `[checkpoints, n]`."""
    from engine.training.outputs import evaluate

    task, encoding = task_of(study), study.dataset.encoding
    found = [evaluate(task, model, arrays, encoding, 512, "cpu")["output"] for model in models]
    margins = np.stack(found).astype(np.float64)
    # The margin is log p/(1 − p).
    return {"probability": (1 + np.tanh(margins / 2)) / 2, "margin": margins}


def _effect(
    intensity: float, a: dict[str, np.ndarray], b: dict[str, np.ndarray]
) -> tuple[Effect, float]:
    """Estimate both ATEs and their difference.

    Args:
        a, b: Changes by output, `[checkpoints, n]`.
    """
    estimates = {
        output: {
            "a": estimate(a[output]),
            "b": estimate(b[output]),
            "difference": estimate_difference(a[output], b[output]),
        }
        for output in OUTPUTS
    }
    by_key = {
        key: {output: estimates[output][key].interval() for output in OUTPUTS}
        for key in ("a", "b", "difference")
    }
    p = {output: estimates[output]["difference"].p_value() for output in OUTPUTS}
    strength = 0.0
    if p["probability"] is not None:
        difference = by_key["difference"]["probability"]
        strength = max(0.0, difference.low, -difference.high)
    return Effect(intensity, by_key["a"], by_key["b"], by_key["difference"], p), strength
