"""The lasso of many targets on the same masks, from a large penalty down.

For each target y (the outputs of one test example over m subset runs), over weights w and a bias b:

    minimize  1/(2m) ‖X̃w + b − y‖² + λ‖w‖₁,    X̃ = the masks, each column with mean 0, variance 1

(Ilyas et al. 2022, Datamodels, equation 3, on standardized masks). The bias is not penalized, so y
can be centered first. For λ ≥ λ_max = max_j |X̃ᵀ(y − ȳ)|_j / m, all weights are 0. Each step down
the path starts from the solution before. The targets share one product of residuals with the masks
per step; the work for each target alone is small, because few weights are not zero:

* `CoordinateDescent` (CPU): coordinate descent over each target's working set, targets in parallel,
  repeated until the shared product shows that the optimality conditions hold outside the set too.
  The sequential strong rule (Tibshirani et al. 2012) predicts which columns join a working set.
* `ProximalGradient` (torch, any device): FISTA (Beck & Teboulle 2009) with restarts (O'Donoghue &
  Candès 2015). All targets advance together, so that all work is matrix products.

Both hold the masks as float32 `[m, n]` and three float32 arrays `[t, n]` for a block of t targets.
Coordinate descent also holds the correlations within each target's working set.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 5e-6
"""Largest accepted violation of the optimality conditions, relative to λ_max."""
PATH_TOLERANCE = 1e-4
"""The same along a path, which only serves to choose λ."""
_MOST_ROUNDS = 100
_MOST_SWEEPS = 10_000
_MOST_STEPS = 20_000
_STEPS_BETWEEN_CHECKS = 10


def standardize(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardize the columns of masks `[m, n]` bool.

    Returns:
        X̃ᵀ `[n, m]` float32, and of each column the mean and 1 / standard deviation, `[n]` float64.
        An example in all masks or in none has a row of zeros and scale 0.
    """
    mean = masks.mean(axis=0, dtype=np.float64)
    deviation = np.sqrt(mean * (1 - mean))
    scale = np.divide(1, deviation, out=np.zeros_like(mean), where=deviation > 0)
    columns = np.ascontiguousarray(masks.T, dtype=np.float32)
    columns -= mean[:, None].astype(np.float32)
    columns *= scale[:, None].astype(np.float32)
    return columns, mean, scale


class Solver(Protocol):
    """Solves the lasso along the path for the targets of one block.

    Attributes:
        mean: Share of the runs whose mask has each example, `[n]` float64.
        scale: Factor from weights of standardized masks to weights of raw masks, `[n]` float64.
    """

    mean: np.ndarray
    scale: np.ndarray

    def begin(self, outputs: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Start on a block of targets.

        Args:
            outputs: `[t, m]` float32, each row with mean 0.
            weights: Where to start, for standardized masks, `[t, n]`; None starts at 0.

        Returns:
            λ_max `[t]` float32.
        """

    def solve(self, penalty: np.ndarray, targets: np.ndarray) -> None:
        """Minimize for some targets of the block, each at its own λ `[len(targets)]`."""

    def weights(self, targets: np.ndarray) -> np.ndarray:
        """The current weights for standardized masks, `[len(targets), n]` float32."""

    def gap(self, penalty: np.ndarray) -> np.ndarray:
        """Duality gap of each target at λ = `penalty` `[t]`, relative to the objective at w = 0."""


def duality_gap(
    outputs: np.ndarray,
    residual: np.ndarray,
    gradient: np.ndarray,
    weights: np.ndarray,
    penalty: np.ndarray,
) -> np.ndarray:
    """Upper bound on how far the objective is above its minimum, over ½ mean y²; `[t]` float64.

    Args:
        outputs: Targets `[t, m]`, mean 0.
        residual: y − X̃w `[t, m]`.
        gradient: X̃ᵀ(y − X̃w) / m `[t, n]`.
        weights: w `[t, n]`.
        penalty: λ `[t]`.
    """
    m = outputs.shape[1]
    y, r = outputs.astype(np.float64), residual.astype(np.float64)
    steepest = np.abs(gradient).max(axis=1).astype(np.float64)
    shrink = np.minimum(1, np.divide(penalty, steepest, out=np.ones(len(y)), where=steepest > 0))
    feasible = r * shrink[:, None]
    norm = penalty * np.abs(weights).sum(axis=1, dtype=np.float64)
    primal = (r * r).sum(axis=1) / (2 * m) + norm
    dual = ((y * y).sum(axis=1) - ((y - feasible) ** 2).sum(axis=1)) / (2 * m)
    nothing = (y * y).sum(axis=1) / (2 * m)
    result: np.ndarray = np.zeros(len(y))
    np.divide((primal - dual).clip(min=0), nothing, out=result, where=nothing > 0)
    return result


# --- coordinate descent ---------------------------------------------------------------------------


class _WorkingSet:
    """The columns in which one target descends, and their correlations. It only ever grows."""

    def __init__(self, n: int) -> None:
        self.inside = np.zeros(n, bool)
        self.members = np.zeros(0, np.int64)
        self.known = np.zeros(0, np.int64)
        self.gram = np.zeros((0, 0), np.float32)

    def add(self, gradient: np.ndarray, bound: np.float32) -> None:
        """Add the columns whose gradient is above the bound."""
        from engine.attribution.datamodels.coordinate_descent import grown, joining

        new = joining(gradient, bound, self.inside)
        if not len(new):
            return
        self.members = np.concatenate([self.members, new])
        if len(self.members) > len(self.gram):
            self.gram = grown(self.gram, self.known, len(self.members) * 3 // 2)
        self.known = np.concatenate([self.known, np.zeros_like(new)])


class CoordinateDescent:
    """`Solver` on the CPU, with numba.

    Args:
        masks: `[m, n]` bool.
        threads: Number of targets solved at once. (Matrix products take as many threads as the
            process allows.)
        tolerance: Largest accepted violation of the optimality conditions, relative to λ_max.
    """

    def __init__(self, masks: np.ndarray, threads: int = 1, tolerance: float = TOLERANCE) -> None:
        m, n = masks.shape
        self._tolerance = tolerance
        self._columns, self.mean, self.scale = standardize(masks)
        bits = np.zeros((n, -(-m // 64) * 8), np.uint8)
        bits[:, : -(-m // 8)] = np.packbits(masks, axis=0).T
        self._bits = bits.view(np.uint64)
        self._threads = threads

    def begin(self, outputs: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        t, n = len(outputs), len(self._columns)
        self._outputs = outputs
        self._residual = outputs.copy()
        self._weights = np.zeros((t, n), np.float32)
        self._gradient = self._products(outputs)
        self._largest = np.abs(self._gradient).max(axis=1)
        self._sets = [_WorkingSet(n) for _ in range(t)]
        self._last: np.ndarray | None = self._largest.copy()
        if weights is not None:
            self._last = None  # the strong rule needs the solution of a larger λ
            self._weights[:] = weights
            self._residual -= self._weights @ self._columns
            self._gradient = self._products(self._residual)
            for own, row in zip(self._sets, self._weights, strict=True):
                own.add(row, np.float32(0))
        largest: np.ndarray = self._largest
        return largest

    def solve(self, penalty: np.ndarray, targets: np.ndarray) -> None:
        from engine.attribution.datamodels.coordinate_descent import violations

        penalty = penalty.astype(np.float32)
        joins = penalty
        if self._last is not None:
            joins = 2 * penalty - self._last[targets]
            self._last[targets] = penalty
        with ThreadPoolExecutor(self._threads) as pool:
            for _ in range(_MOST_ROUNDS):
                broken = violations(self._gradient, self._weights, targets, penalty)
                left = broken > self._tolerance * self._largest[targets]
                if not left.any():
                    return
                targets, penalty, joins = targets[left], penalty[left], joins[left]
                list(pool.map(self._descend, targets, penalty, joins))
                if len(targets) == len(self._residual):  # no copies
                    self._gradient = self._products(self._residual)
                else:
                    self._gradient[targets] = self._products(self._residual[targets])
                joins = penalty

    def weights(self, targets: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._weights[targets]
        return found

    def gap(self, penalty: np.ndarray) -> np.ndarray:
        return duality_gap(self._outputs, self._residual, self._gradient, self._weights, penalty)

    def _descend(self, target: int, penalty: np.float32, joins: np.float32) -> None:
        from engine.attribution.datamodels.coordinate_descent import descend

        own = self._sets[target]
        own.add(self._gradient[target], joins)
        descend(
            self._bits,
            self.mean,
            self.scale,
            self._columns,
            penalty,
            np.float32(self._tolerance / 2 * self._largest[target]),
            _MOST_SWEEPS,
            self._gradient[target],
            self._weights[target],
            self._residual[target],
            own.members,
            own.known,
            own.gram,
        )

    def _products(self, residual: np.ndarray) -> np.ndarray:
        """X̃ᵀr / m, `[t, n]`."""
        product: np.ndarray = residual @ self._columns.T
        product /= residual.shape[1]
        return product


# --- proximal gradient ----------------------------------------------------------------------------


class ProximalGradient:
    """`Solver` in torch.

    Args:
        masks: `[m, n]` bool.
        device: Such as `cuda`.
        tolerance: Violation that is let pass, relative to λ_max.
    """

    def __init__(self, masks: np.ndarray, device: str, tolerance: float = TOLERANCE) -> None:
        import torch

        self._tolerance = tolerance
        columns, self.mean, self.scale = standardize(masks)
        self._columns = torch.from_numpy(columns).to(device)
        self._curvature = self._largest_eigenvalue()

    def begin(self, outputs: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        import torch

        self._outputs = torch.from_numpy(outputs).to(self._columns)
        self._largest = self._gradient(self._outputs).abs().amax(1)
        if weights is None:
            self._weights = self._columns.new_zeros(len(outputs), len(self._columns))
        else:
            self._weights = torch.from_numpy(weights).to(self._columns)
        largest: np.ndarray = self._largest.cpu().numpy()
        return largest

    def solve(self, penalty: np.ndarray, targets: np.ndarray) -> None:
        import torch

        left = torch.from_numpy(targets).to(self._columns.device)
        bound = torch.from_numpy(penalty).to(self._columns)[:, None]
        w = self._weights[left]
        ahead, momentum = w, torch.ones_like(bound)
        for step in range(_MOST_STEPS):
            if step % _STEPS_BETWEEN_CHECKS == 0:
                self._weights[left] = w
                broken = self._violations(left, bound)
                keep = broken > self._tolerance * self._largest[left]
                if not keep.any():
                    return
                left, bound, w = left[keep], bound[keep], w[keep]
                ahead, momentum = ahead[keep], momentum[keep]
            gradient = self._gradient(self._outputs[left] - ahead @ self._columns)
            moved = ahead + gradient / self._curvature
            new = moved.sign() * (moved.abs() - bound / self._curvature).clamp(min=0)
            uphill = ((ahead - new) * (new - w)).sum(1, keepdim=True) > 0
            momentum = torch.where(uphill, 1.0, momentum)  # restart
            grown = (1 + (1 + 4 * momentum**2).sqrt()) / 2
            ahead = new + (momentum - 1) / grown * (new - w)
            w, momentum = new, grown
        self._weights[left] = w

    def weights(self, targets: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._weights[targets].cpu().numpy()
        return found

    def gap(self, penalty: np.ndarray) -> np.ndarray:
        residual = self._outputs - self._weights @ self._columns
        tensors = (self._outputs, residual, self._gradient(residual), self._weights)
        arrays: list[np.ndarray] = [tensor.cpu().numpy() for tensor in tensors]
        return duality_gap(arrays[0], arrays[1], arrays[2], arrays[3], penalty)

    def _gradient(self, residual: Tensor) -> Tensor:
        """X̃ᵀr / m, `[t, n]`."""
        return residual @ self._columns.T / self._columns.shape[1]

    def _violations(self, targets: Tensor, bound: Tensor) -> Tensor:
        """As `coordinate_descent.violations`."""
        w = self._weights[targets]
        gradient = self._gradient(self._outputs[targets] - w @ self._columns)
        at_zero = gradient.abs() - bound
        return at_zero.where(w == 0, (gradient - bound * w.sign()).abs()).amax(1)

    def _largest_eigenvalue(self) -> float:
        """Of X̃ᵀX̃ / m, by the power method, a little too large to be safe."""
        import torch

        m = self._columns.shape[1]
        generator = torch.Generator().manual_seed(0)
        vector = torch.randn(m, generator=generator).to(self._columns)
        for _ in range(100):
            vector = (vector / vector.norm()) @ self._columns.T @ self._columns / m
        return 1.02 * max(float(vector.norm()), 1e-12)
