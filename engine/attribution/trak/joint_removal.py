"""Which training examples matter most to a prediction *together*.

A score is about one example. Near copies stand in for each other: without one of them the others
still teach the same, so each has a small score. `strongest_first` therefore chooses one example at
a time and computes the scores of all others anew without those chosen so far ("adaptive greedy" in
Hu et al., 2024, *Most Influential Subset Selection*). Without the examples S, an example scores

    qᵢ φ(x)ᵀ H_S⁻¹ φᵢ,    H_S = ΦᵀWΦ + λI − Σ_{i∈S} BᵢᵀBᵢ

where Bᵢ are the rows of example i in H: √wᵢ φᵢ, or its samples where the curvature is sampled. By
Woodbury's identity, that takes the inner products under H⁻¹ of all rows with those of the examples
removed, and nothing of the size of H. All examples are candidates: one that repeats what a stronger
one teaches may well score nothing, or less, until that one is gone.

The whole set is judged by one Newton step without all of it (Koh et al., 2019), which lowers the
output by

    Δ(S) = φ(x)ᵀ H_S⁻¹ Σ_{i∈S} qᵢ φᵢ

and is exact for ridge regression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RemovalSystem:
    """The linear system of one checkpoint, as far as removing some of n examples is concerned.

    It has r rows: vectors of the size of φ, of which each example has one gradient and s rows of H.

    Attributes:
        products: Gives all rows' inner products under H⁻¹ with some of them: row numbers `[k]` →
            float `[r, k]`.
        test: Inner products of the rows with φ(x) under H⁻¹, float64 `[r]`.
        curvature: Which rows, times `scale`, are Bᵢ: int `[n, s]`. Row i is φᵢ.
        scale: √w, float64 `[n]`; 1 where rows of H are not weighted.
    """

    products: Callable[[np.ndarray], np.ndarray]
    test: np.ndarray
    curvature: np.ndarray
    scale: np.ndarray


def strongest_first(
    systems: Sequence[RemovalSystem], out_to_loss: np.ndarray, size: int, sign: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The examples with the strongest scores, each without all before it.

    Args:
        systems: One for each checkpoint; scores are the mean over them.
        out_to_loss: q of each example `[n]`.
        size: How many to choose, at most n; fewer if no further one is on that side.
        sign: 1 for those that support the prediction, −1 for those that oppose it.

    Returns:
        Numbers of the k chosen examples, int64 `[k]`, and Δ of the first 1, 2, ... of them, the
        mean over systems: float64 `[k]`.
    """
    states = [_State(system, out_to_loss) for system in systems]
    chosen: list[int] = []
    reached: list[float] = []
    for _ in range(size):
        scores = sign * np.mean([state.scores() for state in states], axis=0)
        scores[chosen] = -np.inf
        best = int(np.argmax(scores))
        if scores[best] <= 0:
            break
        reached.append(_without(states, best))
        chosen.append(best)
    return np.array(chosen, np.int64), np.array(reached)


def effect_together(
    systems: Sequence[RemovalSystem], out_to_loss: np.ndarray, removed: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Δ of the first 1, 2, ... of these examples, the mean over systems: float64 `[k]`.

    Args:
        systems, out_to_loss: As in `strongest_first`.
        removed: Numbers of k examples, in the order of removal.
    """
    states = [_State(system, out_to_loss) for system in systems]
    return np.array([_without(states, int(example)) for example in removed])


def _without(states: Sequence[_State], example: int) -> float:
    """Remove one more example from all systems; returns Δ of all that are removed by now."""
    for state in states:
        state.remove(example)
    return float(np.mean([state.effect for state in states]))


class _State:
    """One checkpoint's system without the examples removed so far."""

    def __init__(self, system: RemovalSystem, out_to_loss: np.ndarray) -> None:
        self.system, self.q = system, out_to_loss
        self.test = system.test.copy()
        self.removed: list[int] = []
        self.updates: list[tuple[np.ndarray, np.ndarray]] = []
        """What removals add to the products: factors `[r, s]` and `[s, r]`."""

    def scores(self) -> np.ndarray:
        """Scores of all examples `[n]`."""
        found: np.ndarray = self.q * self.test[: len(self.q)]
        return found

    @property
    def effect(self) -> float:
        """Δ of the removed examples."""
        return float(self.scores()[self.removed].sum())

    def remove(self, example: int) -> None:
        """Take an example out of the system."""
        rows, scale = self.system.curvature[example], self.system.scale[example]
        beside = self.system.products(rows).astype(np.float64) * scale
        for left, right in self.updates:
            beside += left @ right[:, rows] * scale
        solved = np.linalg.solve(np.eye(len(rows)) - beside[rows] * scale, beside.T)
        self.test += self.test[rows] * scale @ solved
        self.updates.append((beside, solved))
        self.removed.append(example)
