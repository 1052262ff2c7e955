"""Settings of TRAK chosen on validation runs, against scores computed in plain numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import stats

from engine.attribution.trak.kernel import Kernel
from engine.attribution.trak.solver import Solver
from engine.attribution.trak.tuning import attribute_by_features, attribute_by_kernel, tune

SOLVER = Solver("dual-wide", 20, 20, 1.5, "", 0.5, "gauss-newton")
GENERATOR = np.random.default_rng(0)
TRAIN, TEST = (GENERATOR.normal(size=(n, 20)).astype(np.float32) for n in (60, 12))
Q = GENERATOR.uniform(0.01, 1, size=60).astype(np.float32)
MASKS = GENERATOR.random((40, 60)) < 0.5


def scores(tempering: float, damping: float, threshold: float, per: int) -> np.ndarray:
    """τ by the formula, in float64; the ridge is relative to tr/`per`."""
    weight = Q.astype(np.float64) ** tempering
    scaled = weight / weight.mean()
    gram = TRAIN.T.astype(np.float64) @ (scaled[:, None] * TRAIN)
    ridge = damping * np.trace(gram) / per
    solved = np.linalg.solve(gram + ridge * np.eye(20), TEST.T.astype(np.float64))
    found = (TRAIN @ solved).T * weight
    size = threshold * found.std(axis=1, keepdims=True)
    return np.sign(found) * np.maximum(np.abs(found) - size, 0)


def lds_of(tau: np.ndarray, outputs: np.ndarray) -> float:
    predicted = tau @ MASKS.T
    pairs = zip(predicted, outputs.T, strict=True)
    return float(np.mean([stats.spearmanr(mine, theirs).statistic for mine, theirs in pairs]))


def outputs_of(tempering: float, damping: float, threshold: float, per: int) -> np.ndarray:
    signal = MASKS @ scores(tempering, damping, threshold, per).T
    return (signal / signal.std() + 0.1 * GENERATOR.normal(size=signal.shape)).astype(np.float32)


def test_every_trial_has_the_lds_of_the_formula_and_the_best_is_taken() -> None:
    outputs = outputs_of(1.0, 6.0, 0.5, per=60)
    train = torch.from_numpy(np.triu(TRAIN @ TRAIN.T))
    kernel = Kernel(train, torch.from_numpy(TRAIN @ TEST.T))
    kept = kernel.train.clone()
    attribute = attribute_by_kernel(kernel, torch.from_numpy(Q))
    tuned = tune(attribute, SOLVER, torch.from_numpy(Q), MASKS, outputs)
    solver, trials = tuned.solver, tuned.trials
    for trial in trials:
        tau = scores(trial.tempering, trial.damping, trial.soft_threshold, per=60)
        assert abs(trial.lds - lds_of(tau, outputs)) < 0.01
    best = max(trials, key=lambda trial: trial.lds)
    assert (solver.tempering, solver.damping, solver.soft_threshold) == (
        best.tempering,
        best.damping,
        best.soft_threshold,
    )
    assert (solver.tempering, solver.damping) == (1.0, 6.0)
    assert len(trials) >= 1 + 3 + 4 + 3  # and what only a half of the runs led to
    assert len({(one.tempering, one.damping, one.soft_threshold) for one in trials}) == len(trials)
    assert torch.equal(kernel.train, kept)


def test_the_primal_is_tuned_like_the_dual() -> None:
    outputs = outputs_of(0.25, 0.3, 0.0, per=20)
    attribute = attribute_by_features(*map(torch.from_numpy, (TRAIN, TEST, Q)))
    tuned = tune(attribute, SOLVER, torch.from_numpy(Q), MASKS, outputs)
    solver, trials = tuned.solver, tuned.trials
    for trial in trials:
        tau = scores(trial.tempering, trial.damping, trial.soft_threshold, per=20)
        assert abs(trial.lds - lds_of(tau, outputs)) < 0.01
    assert solver.tempering == 0.25
    assert solver.damping == 0.3


def test_fixed_settings_stay() -> None:
    outputs = outputs_of(1.0, 6.0, 0.5, per=20)
    attribute = attribute_by_features(*map(torch.from_numpy, (TRAIN, TEST, Q)))
    tuned = tune(
        attribute, SOLVER, torch.from_numpy(Q), MASKS, outputs, dampings=(), soft_thresholds=()
    )
    solver, trials = tuned.solver, tuned.trials
    assert {trial.damping for trial in trials} == {SOLVER.damping}
    assert solver == replace(SOLVER, tempering=solver.tempering)
