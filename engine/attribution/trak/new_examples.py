"""TRAK of examples that are not in the study, from stored training features and inverses.

    dual:  s(x) = √W⁻¹ (√W K √W + λI)⁻¹ √W k(x)          primal:  s(x) = Φ (ΦᵀWΦ + λI)⁻¹ φ(x)

Everything that does not depend on x is computed once for each checkpoint and stored:

* the *inverse*: the matrix in front of k(x) or φ(x). A query reads it once. A Cholesky factor would
  have to be copied and read twice, which takes ten times as long; λ keeps the inverse accurate.
* the *training features*: each training example's projected gradient and, for the dual, the input
  of each linear layer with an exact kernel and the gradient at its output.

A query then takes one forward and backward pass of the example and two matrix products, with the
study's own solver. Scores are those of `dual.attribute_dual` and of `primal.test_factors`, before
multiplication by Q.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.attribution.trak.backward import backward
from engine.attribution.trak.dual import factorize
from engine.attribution.trak.kernel import Batches, feature_parameters, make_kernel, outer_layers
from engine.attribution.trak.layers import layers_of
from engine.attribution.trak.linear_system import example_weights
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.plan import Batch, Examples, Layer, Output, Plan, in_order, rows_of
from engine.attribution.trak.primal import gram_factor
from engine.attribution.trak.projection import Projection, project
from engine.attribution.trak.solver import Solver

ExampleFeatures = Mapping[str, np.ndarray]
"""Arrays by name, float32: `features` `[rows, p]`, and for each linear layer with an exact kernel
`inputs.LAYER` `[rows, in]` and `gradients.LAYER` `[rows, out]`."""


@dataclass(frozen=True)
class FeatureExtractor:
    """Computes the features of examples at one checkpoint.

    Attributes:
        model: In eval mode.
        output: The task's model output.
        outer: Linear layers with an exact kernel, by name; empty in the primal.
        projection: Of the gradients of all other parameters; None where there are none.
        examples: `Plan.examples`.
    """

    model: nn.Module
    output: Output
    outer: Mapping[str, nn.Module]
    projection: Projection | None
    examples: Mapping[str, Examples]

    def extract(self, batch: Batch) -> dict[str, np.ndarray]:
        """ExampleFeatures of a batch of prepared examples."""
        found: dict[str, Tensor] = {}

        def keep(path: str, layer: nn.Module, a: Tensor, g: Tensor) -> None:
            found[f"inputs.{path}"], found[f"gradients.{path}"] = a.flatten(1), g.flatten(1)

        if self.projection is None:
            backward(self.model, self.output, batch, self.outer, keep, self.examples)
        else:
            found["features"] = project(
                self.model, self.output, batch, self.projection, None, self.outer, keep
            )
        return {name: tensor.cpu().numpy() for name, tensor in found.items()}

    def extract_all(self, batches: Iterator[Batch]) -> dict[str, np.ndarray]:
        """ExampleFeatures of several batches, joined in the order of the examples."""
        parts: list[dict[str, np.ndarray]] = []
        rows: list[Tensor | slice] = []
        for batch in batches:
            parts.append(self.extract(batch))
            rows.append(rows_of(batch, 0))
        return {
            name: in_order([torch.from_numpy(part[name]) for part in parts], rows).numpy()
            for name in parts[0]
        }


def make_feature_extractor(
    model: nn.Module, output: Output, plan: Plan, solver: Solver, seed: int
) -> FeatureExtractor:
    """Make the feature extractor of one checkpoint.

    Args:
        model: In eval mode.
        output: The task's model output.
        plan: The one the study was built with: another plan would draw another projection.
        solver: The study's.
        seed: The checkpoint's.
    """
    if solver.kind == "primal":
        return FeatureExtractor(
            model,
            output,
            {},
            make_projection(plan, model, solver.width, solver.proj_dim, seed),
            plan.examples,
        )
    found = layers_of(model, plan)
    outer = {path: found[path] for path in outer_layers(plan, model)}
    chosen = set(feature_parameters(plan, model))
    projection = None
    if chosen:
        projection = make_projection(plan, model, solver.width, None, seed, chosen.__contains__)
    return FeatureExtractor(model, output, outer, projection, plan.examples)


def dual_inverse(
    model: nn.Module,
    output: Output,
    train: Batches,
    plan: Plan,
    solver: Solver,
    seed: int,
    memory_bytes: int,
    out_to_loss: Tensor,
) -> tuple[Tensor, float]:
    """(√W⁻¹ (√W K √W + λI)⁻¹ √W `[n_train, n_train]`, λ). Arguments as in `dual.attribute_dual`."""
    kernel = make_kernel(
        model, output, train, lambda: iter(()), plan, solver.width, seed, memory_bytes
    ).train
    weights = example_weights(out_to_loss.to(kernel), solver)
    root = None if weights is None else weights.sqrt()
    ridge = dual_ridge(kernel.diagonal(), solver, out_to_loss)
    inverse = torch.cholesky_inverse(factorize(kernel, solver.damping, root))
    if root is not None:
        inverse.mul_(root).div_(root[:, None])
    return inverse, ridge


def dual_ridge(diagonal: Tensor, solver: Solver, out_to_loss: Tensor) -> float:
    """λ of the dual.

    Args:
        diagonal: Of the kernel K, `[n_train]`.
        solver: The study's.
        out_to_loss: Q of the training examples at this checkpoint, `[n_train]`.
    """
    weights = example_weights(out_to_loss.to(diagonal), solver)
    return solver.damping * float((diagonal if weights is None else weights * diagonal).mean())


def kernel_diagonal(shard: ExampleFeatures, plan: Plan) -> np.ndarray:
    """K_jj of a shard's training examples, float64."""
    found = np.zeros(len(next(iter(shard.values()))))
    for name, kept in shard.items():
        path = name.removeprefix("inputs.")
        if name == "features":
            found += np.einsum("np,np->n", kept, kept)
        elif path != name:
            gradients = shard[f"gradients.{path}"]
            one = plan.layers[path].bias is not None
            squares = np.einsum("np,np->n", gradients, gradients)
            found += (np.einsum("np,np->n", kept, kept) + one) * squares
    return found


def primal_inverse(gram: Tensor, damping: float) -> Tensor:
    """(ΦᵀWΦ + λI)⁻¹ `[p, p]`, from `gram` = ΦᵀWΦ."""
    return torch.cholesky_inverse(gram_factor(gram, damping))


def dual_scores(
    inverse: np.ndarray, shards: Sequence[ExampleFeatures], example: ExampleFeatures, plan: Plan
) -> np.ndarray:
    """Scores `[b, n_train]` of b examples, float32.

    Args:
        inverse: From `dual_inverse`.
        shards: ExampleFeatures of the training examples, in order.
        example: ExampleFeatures of the b examples.
        plan: Tells which linear layers have a bias.
    """
    cross = np.concatenate([kernel_with(shard, example, plan) for shard in shards])
    scores: np.ndarray = (inverse @ cross).T
    return scores


def kernel_with(shard: ExampleFeatures, example: ExampleFeatures, plan: Plan) -> np.ndarray:
    """The kernel k of a shard's training examples with the examples: `[rows, b]`."""
    rows = len(next(iter(shard.values())))
    found = np.zeros((rows, len(next(iter(example.values())))), np.float32)
    for name, kept in shard.items():
        path = name.removeprefix("inputs.")
        if name == "features":
            found += kept @ example[name].T
        elif path != name:
            one = np.float32(plan.layers[path].bias is not None)
            gradients = shard[f"gradients.{path}"] @ example[f"gradients.{path}"].T
            found += (kept @ example[name].T + one) * gradients
    return found


def primal_scores(
    inverse: np.ndarray, shards: Sequence[ExampleFeatures], example: ExampleFeatures
) -> np.ndarray:
    """Scores `[b, n_train]` of b examples, float32; `inverse` is from `primal_inverse`."""
    solved = inverse @ example["features"].T
    return np.concatenate([shard["features"][:] @ solved for shard in shards]).T


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """A plan as JSON. Its order matters, so mappings become lists of pairs."""
    return {
        "shapes": [[name, list(shape)] for name, shape in plan.shapes.items()],
        "energies": list(plan.energies.items()),
        "layers": [
            [path, [layer.weight, layer.bias, layer.positions, layer.examples, layer.lead]]
            for path, layer in plan.layers.items()
        ],
        "untapped": list(plan.untapped),
        "looped": plan.looped,
    }


def plan_from_json(kept: Mapping[str, Any]) -> Plan:
    """The plan that `plan_as_json` wrote."""
    return Plan(
        shapes={name: torch.Size(shape) for name, shape in kept["shapes"]},
        energies=dict(kept["energies"]),
        layers={path: Layer(*parts) for path, parts in kept["layers"]},
        untapped=tuple(kept["untapped"]),
        looped=kept["looped"],
    )
