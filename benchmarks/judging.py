"""Do conclusions keep their promise? Rates of false positives, and figures that must be 0 on noise.

python -m benchmarks.judging --json [--save]

Nothing is there to be found in these simulations. Everything comes from seeds, so the figures are
the same on every machine. Only `planted_hybrid_p` is of a difference that is there: the shipped
shortcut, whose study is kept in `.bench/`. `effect_slope` and `effect_coverage_90` compare
predicted effects of removals with retraining (`benchmarks.effects`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import effects
from benchmarks._report import log, report
from benchmarks.judging_modeldiff import false_positives, planted_hybrid
from benchmarks.random_networks import first_output, random_network
from engine.applications.modeldiff.effect_estimates import estimate_difference
from engine.applications.unlearning.klom import DIRECTION
from engine.applications.unlearning.model_tests import p_closer, p_differs
from engine.attribution.datamodels.fit import fit_datamodels
from engine.attribution.datamodels.hybrid import choose
from engine.attribution.evaluation.preference import Validation, validation_lds
from engine.attribution.evaluation.quality import share
from engine.attribution.trak.gradients import per_example_gradients
from engine.attribution.trak.kernel import NO_LIMIT, make_kernel
from engine.attribution.trak.make_plan import plan_gradients

PAIRS = 400
NETWORKS = 200
MASKS = (40, 100, 200)
HYBRID_RUNS = 60
LEVEL = 0.05
TRAIN = 8


def measure() -> dict[str, Any]:
    """All figures."""
    return {
        "ate_false_positive": {str(n): ate_false_positive(n) for n in (2, 3, 5, 10)},
        "modeldiff_false_positive": {
            "5": modeldiff_false_positive("5", 5),
            "40": modeldiff_false_positive("40", 40),
            "hybrid": modeldiff_false_positive("hybrid", 5, HYBRID_RUNS),
        },
        **planted_hybrid(),
        "klom_false_positive": {str(n): klom_false_positive(n) for n in (10, 20, 50)},
        "method_false_positive": {str(n): method_false_positive(n) for n in (10, 20, 50)},
        "preferred_on_noise_lds": preferred_on_noise(),
        "kernel_max_rel_error": worst_kernel_error(),
        **effects.measure(),  # last, because it shortens the shared data
        "pairs": PAIRS,
        "networks": NETWORKS,
    }


def ate_false_positive(checkpoints: int) -> dict[str, float]:
    """Share of equal algorithms whose effects are called different.

    Checkpoints differ from each other as much as pictures do.
    """
    found = 0
    for seed in range(PAIRS):
        generator = np.random.default_rng([checkpoints, seed])
        pictures = generator.normal(size=200)
        a, b = (
            pictures
            + generator.normal(size=(checkpoints, 1))
            + generator.normal(size=(checkpoints, 200))
            for _ in "ab"
        )
        p = estimate_difference(a, b).p_value()
        found += p is not None and p < LEVEL
    return _rate("ate", checkpoints, found)


def modeldiff_false_positive(name: str, checkpoints: int, runs: int = 0) -> dict[str, float]:
    """Share of equal algorithms of which one has a significant direction."""
    return _rate("modeldiff", name, false_positives(PAIRS, LEVEL, checkpoints, runs))


def klom_false_positive(models: int) -> dict[str, float]:
    """Share of perfectly unlearned models that are called different from retrained ones."""
    found = 0
    for seed in range(PAIRS):
        generator = np.random.default_rng([models, seed])
        unlearned, oracle = (_margins(generator, models) for _ in "ab")
        found += p_differs(unlearned, oracle, DIRECTION) <= LEVEL
    return _rate("klom", models, found)


def method_false_positive(models: int) -> dict[str, float]:
    """Share of equal methods of which one is called closer to retrained models."""
    found = 0
    for seed in range(PAIRS):
        generator = np.random.default_rng([models, seed])
        originals = 2 * generator.normal(size=(models, 1))
        one, other = (originals + _margins(generator, models) for _ in "ab")
        found += p_closer(one, other, _margins(generator, models), DIRECTION) <= LEVEL
    return _rate("method", models, found)


def _margins(generator: np.random.Generator, models: int, examples: int = 30) -> np.ndarray:
    """Margins of models whose examples share a factor: some models are better on all of them."""
    return generator.normal(size=(models, examples)) + generator.normal(size=(models, 1))


def _rate(name: str, size: int | str, found: int) -> dict[str, float]:
    rate = share(found, PAIRS)
    log(f"{name}, {size}: {found} of {PAIRS}")
    return {"mean": rate.mean, "low": round(rate.low, 4), "high": round(rate.high, 4)}


# --- methods on noise ----------------------------------------------------------------------------


def preferred_on_noise() -> dict[str, dict[str, float]]:
    """Cross-fitted validation LDS of every method, mean over banks of each size."""
    found: dict[str, list[float]] = {"trak": [], "datamodel": [], "hybrid": []}
    for masks in MASKS:
        for seed in range(20):
            for method, value in _on_noise(masks, seed):
                found[method].append(value)
        means = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in found.items())
        log(f"noise, up to {masks} masks: {means}")
    result = {}
    for method, values in found.items():
        mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)
        numbers = {"mean": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error}
        result[method] = {name: round(value, 4) for name, value in numbers.items()}
    return result


def _on_noise(runs: int, seed: int) -> Iterator[tuple[str, float]]:
    generator = np.random.default_rng([runs, seed])
    masks = generator.random((runs, 200)) < 0.5
    outputs = generator.normal(size=(runs, 60)).astype(np.float32)
    tau = generator.normal(size=(60, 200)).astype(np.float32)
    held = np.arange(runs) % 4 == 3
    actual = np.ascontiguousarray(outputs[held].T)
    of = torch.from_numpy
    chosen = choose(
        of(tau), of(masks[~held]), of(outputs[~held]), of(masks[held]), of(outputs[held])
    )
    candidates = {
        "trak": tau @ masks[held].T.astype(np.float32),
        "datamodel": fit_datamodels(masks, outputs, held).cross_fitted,
        "hybrid": chosen.cross_fitted,
    }
    for method, predicted in candidates.items():
        yield method, validation_lds(Validation(predicted), actual)


# --- exactness -----------------------------------------------------------------------------------


def worst_kernel_error() -> float:
    """Largest `kernel_error` over random small networks."""
    worst = 0.0
    for seed in range(NETWORKS):
        model, batch = random_network(seed)
        plan = plan_gradients(model, first_output, batch)
        each = per_example_gradients(model, first_output, batch, plan).values()
        gradients = torch.cat([gradient.flatten(1) for gradient in each], dim=1)
        worst = max(worst, kernel_error(model, batch, gradients))
    log(f"kernel: {worst:.2g}")
    return worst


def kernel_error(model: nn.Module, batch: dict[str, Tensor], gradients: Tensor) -> float:
    """Largest error of the exact kernel, relative to its largest entry.

    Args:
        batch: The first `TRAIN` examples are training examples, the others test examples.
        gradients: Of all parameters, one row for each example: the reference.
    """
    train, test = (
        {name: tensor[rows] for name, tensor in batch.items()}
        for rows in (slice(TRAIN), slice(TRAIN, None))
    )
    plan = plan_gradients(model, first_output, batch)
    found = make_kernel(
        model,
        first_output,
        lambda: iter([train]),
        lambda: iter([test]),
        plan,
        plan.n_parameters,
        0,
        NO_LIMIT,
    )
    exact = gradients.double() @ gradients.double().T
    errors = (
        torch.triu(found.train - exact[:TRAIN, :TRAIN]).abs().max(),
        (found.test - exact[:TRAIN, TRAIN:]).abs().max(),
    )
    return float(max(errors) / exact.abs().max())


if __name__ == "__main__":
    report("judging", measure, "False positives, and figures that must be 0 on noise.")
