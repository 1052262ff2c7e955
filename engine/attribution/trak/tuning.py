"""Choose TRAK's settings by LDS on the validation runs, with one checkpoint.

Three settings are tried in turn, each with the best values of those before: the tempering t of the
out-to-loss gradient, the damping λ, and the soft threshold (TRAK, arXiv 2303.14186, section 3). LDS
is flat around the best value of each, so a few values are enough; more would only fit noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.attribution.evaluation.lds import spearman
from engine.attribution.evaluation.preference import halves
from engine.attribution.trak.dual import solve
from engine.attribution.trak.kernel import Kernel
from engine.attribution.trak.linear_system import example_weights, temper
from engine.attribution.trak.primal import gram, test_factors
from engine.attribution.trak.solver import Solver

TEMPERINGS = (0.25, 0.5, 0.75, 1.0)
DAMPINGS = (0.3, 0.75, 1.5, 3.0, 6.0)
OF_SAMPLED = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Dampings for sampled curvature, which needs less than outer products of gradients of the loss."""
SOFT_THRESHOLDS = (0.0, 0.25, 0.5, 1.0)
"""In standard deviations of each test example's scores."""

Attribute = Callable[[Solver], Tensor]
"""Scores `[n_test, n_train]` of one checkpoint with a solver's tempering and damping, before
multiplication by Q."""


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and their LDS on the validation runs."""

    damping: float
    tempering: float
    soft_threshold: float
    lds: float


@dataclass(frozen=True)
class Tuned:
    """The outcome of a search.

    Attributes:
        solver: With the best settings.
        trials: All settings that were tried.
        optimism: How much higher the LDS of the best settings is, on these runs, than that of
            settings that were chosen on other runs: their mean LDS on the two halves of the runs,
            less the one when each half is measured with the settings that the other half chose. 0
            where there are too few runs to split.
    """

    solver: Solver
    trials: list[Trial]
    optimism: float


def attribute_by_kernel(kernel: Kernel, out_to_loss: Tensor) -> Attribute:
    """For the dual solvers: one kernel serves every tempering and damping.

    Args:
        kernel: From `make_kernel`; it is not changed.
        out_to_loss: Q of the training examples at this checkpoint, `[n_train]`.
    """

    def attribute(solver: Solver) -> Tensor:
        copy = Kernel(kernel.train.clone(), kernel.test.clone())
        return solve(copy, solver.damping, example_weights(out_to_loss, solver))

    return attribute


def attribute_by_features(
    train: Tensor, test: Tensor, out_to_loss: Tensor, curvature: Tensor | None = None
) -> Attribute:
    """For the primal: features serve every setting.

    Args:
        train, test: `[n_train, p]` and `[n_test, p]`.
        out_to_loss: Q of the training examples at this checkpoint, `[n_train]`.
        curvature: What the Gram matrix is summed over, `[rows, p]`; None: `train`.
    """
    summed = train if curvature is None else curvature

    def attribute(solver: Solver) -> Tensor:
        return test_factors(gram([summed], solver, out_to_loss), test, solver.damping) @ train.T

    return attribute


def tune(
    attribute: Attribute,
    solver: Solver,
    out_to_loss: Tensor,
    masks: np.ndarray,
    outputs: np.ndarray,
    temperings: Sequence[float] = TEMPERINGS,
    dampings: Sequence[float] = DAMPINGS,
    soft_thresholds: Sequence[float] = SOFT_THRESHOLDS,
) -> Tuned:
    """Find the settings with the highest LDS.

    Args:
        attribute: Computes the scores of this checkpoint.
        solver: With the settings to start from; they stay unless others have a higher LDS.
        out_to_loss: Q of the training examples at this checkpoint, `[n_train]`.
        masks: Of the validation runs, bool `[m, n_train]`.
        outputs: Of the validation runs, `[m, n_test]`.
        temperings: Values to try; none keeps the solver's.
        dampings, soft_thresholds: Likewise.
    """
    drawn = torch.from_numpy(masks.T.astype(np.float32)).to(out_to_loss)
    actual = np.ascontiguousarray(outputs.T)
    parts = [np.ones(len(masks), bool), *(halves(len(masks)) or ())]
    raw: dict[tuple[float, float], Tensor] = {}
    measured: dict[Solver, list[float]] = {}

    def measure(candidate: Solver) -> list[float]:
        """LDS on all runs, and on each half of them."""
        if candidate not in measured:
            key = candidate.tempering, candidate.damping
            if key not in raw:
                raw.clear()  # one setting's scores at a time, to save memory
                raw[key] = attribute(candidate) * temper(out_to_loss, candidate)
            scores = soft_threshold(raw[key], candidate.soft_threshold)
            predicted = (scores @ drawn).cpu().numpy()
            measured[candidate] = [
                float(spearman(predicted[:, part], actual[:, part]).mean()) for part in parts
            ]
        return measured[candidate]

    def search(part: int) -> Solver:
        """The best settings by the LDS on one of `parts`."""
        chosen = solver
        for name, values in (
            ("tempering", temperings),
            ("damping", dampings),
            ("soft_threshold", soft_thresholds),
        ):
            start = chosen
            for value in values:
                changed: dict[str, Any] = {name: value}
                candidate = replace(start, **changed)
                if measure(candidate)[part] > measure(chosen)[part]:
                    chosen = candidate
        return chosen

    measure(solver)
    best = search(0)
    optimism = 0.0
    if len(parts) > 1:
        by_first, by_second = search(1), search(2)
        cross_fitted = measure(by_second)[1] + measure(by_first)[2]
        optimism = (sum(measure(best)[1:]) - cross_fitted) / 2
    trials = [
        Trial(found.damping, found.tempering, found.soft_threshold, each[0])
        for found, each in measured.items()
    ]
    return Tuned(best, trials, optimism)


def soft_threshold(scores: Tensor, threshold: float) -> Tensor:
    """Shrink each row toward 0 by `threshold` times its standard deviation."""
    if threshold == 0:
        return scores
    size = threshold * scores.std(dim=1, correction=0, keepdim=True)
    return scores - scores.clamp(-size, size)
