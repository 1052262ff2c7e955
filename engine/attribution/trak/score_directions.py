"""The direction in gradient space that an example's scores are dot products with.

    s = Φ v,    v = (ΦᵀWΦ + λI)⁻¹ φ(x)

With the primal solver v follows from its inverse. With a dual solver nothing of the size of v is
ever solved for, but the scores s give it, because (ΦᵀWΦ + λI) v = φ(x):

    v = (φ(x) − ΦᵀW s) / λ

Here φ is the whole gradient of layers with an exact kernel, and the projected one of all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.attribution.trak.new_examples import ExampleFeatures, kernel_diagonal, kernel_with
from engine.attribution.trak.plan import Plan


@dataclass(frozen=True)
class ScoreDirection:
    """The direction v of one example at one checkpoint.

    Attributes:
        scores: s `[n_train]`.
        features: `[p]` the part that is scored with projected gradients; None where there are none.
        outer: Linear layers with an exact kernel: name → (weight `[out, in]`, bias `[out]`).
    """

    scores: np.ndarray
    features: np.ndarray | None
    outer: Mapping[str, tuple[np.ndarray, np.ndarray]]


def primal_directions(
    inverse: np.ndarray, shards: Sequence[ExampleFeatures], example: ExampleFeatures
) -> list[ScoreDirection]:
    """Directions of b examples. Arguments as in `new_examples.primal_scores`."""
    solved = example["features"] @ inverse
    scores = np.concatenate([shard["features"][:] @ solved.T for shard in shards]).T
    return [ScoreDirection(s, v, {}) for s, v in zip(scores, solved, strict=True)]


def dual_directions(
    inverse: np.ndarray,
    shards: Sequence[ExampleFeatures],
    example: ExampleFeatures,
    plan: Plan,
    weights: np.ndarray | None,
    damping: float,
) -> list[ScoreDirection]:
    """Directions of b examples.

    Args:
        inverse, shards, example, plan: As in `new_examples.dual_scores`.
        weights: The diagonal of W `[n_train]`; None for W = I.
        damping: λ, relative to the mean of the diagonal of √W K √W.
    """
    cross = np.concatenate([kernel_with(shard, example, plan) for shard in shards])
    w = np.ones(len(cross), np.float32) if weights is None else weights.astype(np.float32)
    ridge = damping * float(np.mean(w * np.concatenate([kernel_diagonal(s, plan) for s in shards])))
    scores = inverse @ cross
    # One step of iterative refinement: the difference below loses digits where λ is small.
    directions = _of_scores(scores, w, ridge, shards, example)
    found = np.stack([_scores_of(direction, shards, plan) for direction in directions], 1)
    scores += inverse @ ((found - scores) * np.float32(ridge))
    return _of_scores(scores, w, ridge, shards, example)


def _of_scores(
    scores: np.ndarray,
    w: np.ndarray,
    ridge: float,
    shards: Sequence[ExampleFeatures],
    example: ExampleFeatures,
) -> list[ScoreDirection]:
    """(φ(x) − ΦᵀW s) / λ of each example; `scores` is `[n_train, b]`."""
    weighted = scores * w[:, None]
    features = example["features"].astype(np.float64) if "features" in example else None
    paths = [name[len("inputs.") :] for name in example if name.startswith("inputs.")]
    outer = {
        path: [
            (np.outer(g, a).astype(np.float64), g.astype(np.float64))
            for a, g in zip(example[f"inputs.{path}"], example[f"gradients.{path}"], strict=True)
        ]
        for path in paths
    }
    row = 0
    for shard in shards:
        part = weighted[row : row + len(next(iter(shard.values())))]
        row += len(part)
        if features is not None:
            features -= part.T @ shard["features"]
        for path in paths:
            inputs, gradients = shard[f"inputs.{path}"], shard[f"gradients.{path}"]
            for (weight, bias), column in zip(outer[path], part.T, strict=True):
                scaled = gradients * column[:, None]
                weight -= scaled.T @ inputs
                bias -= scaled.sum(0)
    return [
        ScoreDirection(
            scores[:, k],
            None if features is None else (features[k] / ridge).astype(np.float32),
            {
                path: (
                    (outer[path][k][0] / ridge).astype(np.float32),
                    (outer[path][k][1] / ridge).astype(np.float32),
                )
                for path in paths
            },
        )
        for k in range(scores.shape[1])
    ]


def _scores_of(
    direction: ScoreDirection, shards: Sequence[ExampleFeatures], plan: Plan
) -> np.ndarray:
    """Φ v `[n_train]`."""
    parts = []
    for shard in shards:
        found = np.zeros(len(next(iter(shard.values()))), np.float32)
        if direction.features is not None:
            found += shard["features"] @ direction.features
        for path, (weight, bias) in direction.outer.items():
            applied = shard[f"inputs.{path}"] @ weight.T
            applied += bias if plan.layers[path].bias is not None else 0
            found += np.einsum("no,no->n", applied, shard[f"gradients.{path}"])
        parts.append(found)
    return np.concatenate(parts)
