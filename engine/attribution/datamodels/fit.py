"""Datamodels: for each target a sparse linear map from the mask of a subset run to its output.

    f(x; model trained on S) ≈ bias_x + Σ_{i in S} w_xi

(Ilyas et al. 2022, Datamodels, section 2). A lasso path is fitted to part of the runs, λ is chosen
for each target on the others, and the weights are then fitted to all runs at that λ. Everything is
in units of the output and of raw masks: w_xi is what training example i adds to the output of x.

One call fits all targets in blocks. Its memory is that of `engine.attribution.datamodels.lasso` for
the runs and one block, however many targets there are. Importing this module imports neither torch
nor numba.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from engine.attribution.datamodels.lasso import (
    PATH_TOLERANCE,
    TOLERANCE,
    CoordinateDescent,
    ProximalGradient,
    Solver,
)
from engine.attribution.evaluation import preference
from engine.store.errors import DataError

BLOCK_BYTES = 2**24
"""Size of a float32 array of a block's targets by training examples. It must not depend on the
machine, because another block size rounds differently."""
_MOST_TARGETS = 512
LEAST_RUNS = 3
DIAGNOSTICS = ("penalty", "penalty_max", "r2", "correlation", "gap")
"""Fields of `Datamodels` that describe the fit of each target, `[t]` float32."""


@dataclass(frozen=True)
class Datamodels:
    """Sparse weights of t targets on n training examples, and how well they fit.

    Attributes:
        indptr: The entries of row x are at indptr[x] : indptr[x + 1] of the next two arrays,
            `[t + 1]` int64.
        indices: Training examples, ascending within a row, `[nnz]` int32.
        values: Their weights, `[nnz]` float32.
        bias: `[t]` float32: the predicted output of a model trained on no example.
        n_train: n.
        penalty: λ of each target, in units of its output (masks standardized), `[t]` float32.
        penalty_max: The smallest λ at which all weights of the target are 0, on the runs that
            were not held out, `[t]` float32.
        r2: R² before the refit on the held-out runs, which also chose λ (so slightly too high),
            `[t]` float32. The mean output has R² = 0.
        correlation: Pearson's correlation on the same runs, `[t]` float32; 0 where the prediction
            or the output is constant.
        cross_fitted: Predicted outputs of the held-out runs, `[t, h]` float32, before the refit.
            Each half of these runs (`preference.halves`) is predicted with the λ that the other
            half chose. All NaN where they are too few to split.
        gap: Duality gap of the refit, relative to the objective at w = 0, `[t]` float32: an upper
            bound on how far from optimal the solution is.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    bias: np.ndarray
    n_train: int
    penalty: np.ndarray
    penalty_max: np.ndarray
    r2: np.ndarray
    correlation: np.ndarray
    cross_fitted: np.ndarray
    gap: np.ndarray

    @property
    def nonzeros(self) -> np.ndarray:
        """Number of nonzero weights of each target, `[t]`."""
        return np.diff(self.indptr)

    @property
    def weights(self) -> csr_array:
        """The weights as a sparse matrix `[t, n]` float32."""
        shape = len(self.bias), self.n_train
        return csr_array((self.values, self.indices, self.indptr), shape=shape)

    def rows(self, targets: np.ndarray) -> np.ndarray:
        """Weights of some targets on all training examples: `[len(targets), n]` float32."""
        found: np.ndarray = self.weights[targets].toarray()
        return found

    def predict(self, masks: np.ndarray) -> np.ndarray:
        """Predicted outputs of models trained on masks `[m, n]` bool: `[m, t]` float32."""
        inputs = masks.astype(np.float32)
        outputs = np.empty((len(masks), len(self.bias)), np.float32)
        for block in _blocks(len(self.bias), self.n_train):
            outputs[:, block] = inputs @ self.rows(block).T + self.bias[block]
        return outputs


def fit_datamodels(
    masks: np.ndarray,
    outputs: np.ndarray,
    held_out: np.ndarray,
    *,
    lambdas: int = 20,
    lambda_min_ratio: float = 0.1,
    patience: int | None = 5,
    device: str = "cpu",
    threads: int = 1,
) -> Datamodels:
    """Fit a datamodel to each target.

    Args:
        masks: Which training examples each run was trained on, `[m, n]` bool.
        outputs: Model outputs of the runs, `[m, t]`.
        held_out: The runs that choose λ, `[m]` bool; three or more, and three or more others.
        lambdas: Steps of the path, from a target's λ_max down by equal factors.
        lambda_min_ratio: Last λ of the path over λ_max.
        patience: A target's path ends after this many steps without a smaller error on the
            held-out runs or on a half of them; None follows it to the end.
        device: `cpu` uses coordinate descent (numba), any other device proximal gradients (torch).
        threads: Number of targets fitted at once on the CPU.

    Raises:
        DataError: Shapes do not fit, values are not finite, or there are too few runs.
    """
    _check(masks, outputs, held_out)
    ratios = np.geomspace(1, lambda_min_ratio, lambdas)
    on_part = _solver(masks[~held_out], device, threads, PATH_TOLERANCE)
    on_all = _solver(masks, device, threads, TOLERANCE)
    blocks = [
        _fit_block(masks, outputs[:, block], held_out, on_part, on_all, ratios, patience or lambdas)
        for block in _blocks(outputs.shape[1], masks.shape[1])
    ]
    return _joined(blocks)


def _check(masks: np.ndarray, outputs: np.ndarray, held_out: np.ndarray) -> None:
    m = len(masks)
    if masks.dtype != bool or masks.ndim != 2 or outputs.ndim != 2 or len(outputs) != m:
        raise DataError(
            f"Masks {list(masks.shape)} {masks.dtype} must be [runs, n_train] bool and outputs "
            f"{list(outputs.shape)} [runs, targets], with the same runs."
        )
    if held_out.dtype != bool or held_out.shape != (m,):
        raise DataError(
            f"held_out {list(held_out.shape)} {held_out.dtype} must be [{m}] bool, one per run."
        )
    out, left = int(held_out.sum()), int((~held_out).sum())
    if min(out, left) < LEAST_RUNS:
        raise DataError(
            f"{left} runs to fit and {out} held out: datamodels need {LEAST_RUNS} of each or more."
        )
    if not np.isfinite(outputs).all():
        run, target = np.argwhere(~np.isfinite(outputs))[0]
        raise DataError(f"Outputs hold NaN or infinite values (run {run}, target {target}).")


def _solver(masks: np.ndarray, device: str, threads: int, tolerance: float) -> Solver:
    if device == "cpu":
        return CoordinateDescent(masks, threads, tolerance)
    return ProximalGradient(masks, device, tolerance)


def _fit_block(
    masks: np.ndarray,
    outputs: np.ndarray,
    held_out: np.ndarray,
    on_part: Solver,
    on_all: Solver,
    ratios: np.ndarray,
    patience: int,
) -> Datamodels:
    """Fit one block of targets; λ is chosen by the error on runs that `on_part` has not seen."""
    y = np.ascontiguousarray(outputs.T, dtype=np.float32)
    mean, actual = y[:, ~held_out].mean(axis=1), y[:, held_out]
    penalty_max = on_part.begin(y[:, ~held_out] - mean[:, None])
    scale = on_part.scale.astype(np.float32)
    inputs = (masks[held_out] - on_part.mean).T.astype(np.float32)
    everyone = np.arange(len(y))
    halves = preference.halves(actual.shape[1]) or ()
    choosers = [_Chooser(actual, slice(None)), *(_Chooser(actual, half) for half in halves)]
    weights = np.zeros((len(y), masks.shape[1]), np.float32)
    left = everyone
    for step, ratio in enumerate(ratios):
        on_part.solve(ratio * penalty_max[left], left)
        raw = on_part.weights(left) * scale
        predictions = mean[left, None] + raw @ inputs
        better = choosers[0].see(step, left, predictions)
        weights[left[better]] = raw[better]
        for chooser in choosers[1:]:
            chooser.see(step, left, predictions)
        left = left[np.any([step - one.best[left] < patience for one in choosers], axis=0)]
        if not len(left):
            break
    best, predicted = choosers[0].best, choosers[0].predicted
    cross_fitted = np.full_like(actual, np.nan)
    for half, other in zip(halves, reversed(choosers[1:]), strict=True):
        cross_fitted[:, half] = other.predicted[:, half]

    penalty = ratios[best] * penalty_max
    mean = y.mean(axis=1)
    deviation = np.divide(1, on_all.scale, out=np.zeros_like(on_all.scale), where=on_all.scale > 0)
    on_all.begin(y - mean[:, None], (weights * deviation).astype(np.float32))
    on_all.solve(penalty, everyone)
    weights = (on_all.weights(everyone) * on_all.scale).astype(np.float32)
    row, column = np.nonzero(weights)
    return Datamodels(
        indptr=np.searchsorted(row, np.arange(len(y) + 1)),
        indices=column.astype(np.int32),
        values=weights[row, column],
        bias=(mean - weights @ on_all.mean).astype(np.float32),
        n_train=masks.shape[1],
        penalty=penalty.astype(np.float32),
        penalty_max=penalty_max,
        r2=_r2(predicted, actual),
        correlation=_correlation(predicted, actual),
        cross_fitted=cross_fitted,
        gap=on_all.gap(penalty).astype(np.float32),
    )


class _Chooser:
    """Keeps, for each target, the step of the path with the smallest error on some held-out runs.

    Attributes:
        best: That step, `[t]`.
        predicted: The outputs of all held-out runs predicted at that step, `[t, h]`.
    """

    def __init__(self, actual: np.ndarray, runs: slice | np.ndarray) -> None:
        self._actual, self._runs = actual[:, runs], runs
        self._smallest = np.full(len(actual), np.inf)
        self.best = np.zeros(len(actual), int)
        self.predicted = np.zeros_like(actual)

    def see(self, step: int, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Take note of a step's predictions `[len(targets), h]`; return where they are better."""
        error = ((predictions[:, self._runs] - self._actual[targets]) ** 2).mean(axis=1)
        better: np.ndarray = error < self._smallest[targets]
        rows = targets[better]
        self._smallest[rows], self.best[rows] = error[better], step
        self.predicted[rows] = predictions[better]
        return better


def _r2(predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    error = ((predicted - actual) ** 2).mean(axis=1)
    variance = actual.var(axis=1)
    result: np.ndarray = 1 - np.divide(error, variance, out=np.ones_like(error), where=variance > 0)
    return result


def _correlation(predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    a, b = (values - values.mean(axis=1, keepdims=True) for values in (predicted, actual))
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    result: np.ndarray = np.zeros_like(norms)
    np.divide((a * b).sum(axis=1), norms, out=result, where=norms > 0)
    return result


def _joined(blocks: list[Datamodels]) -> Datamodels:
    nonzeros = np.concatenate([block.nonzeros for block in blocks])
    fields = {
        name: np.concatenate([getattr(block, name) for block in blocks])
        for name in ("indices", "values", "bias", "cross_fitted", *DIAGNOSTICS)
    }
    return Datamodels(
        indptr=np.concatenate([[0], np.cumsum(nonzeros)]), n_train=blocks[0].n_train, **fields
    )


def _blocks(n_targets: int, n_train: int) -> list[np.ndarray]:
    size = max(1, min(_MOST_TARGETS, BLOCK_BYTES // (4 * n_train)))
    return [np.arange(n_targets)[start : start + size] for start in range(0, n_targets, size)]
