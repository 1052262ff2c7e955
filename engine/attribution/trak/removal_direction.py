"""The effect of removing training examples on every output of a model at once, by TRAK.

At one checkpoint, the score of training example i for an output g of example x is

    τ_i(x) = Q_i φ_iᵀ (ΦᵀWΦ + λI)⁻¹ ∇g(x).

So the predicted effect of removing F, −Σ_{i∈F} τ_i(x), is the derivative of g along one direction
in parameter space, which is the same for every example and every output:

    −v,   v = (ΦᵀWΦ + λI)⁻¹ Σ_{i∈F} Q_i φ_i = Φᵀu = ∇ Σ_j u_j f(z_j)

That adds up what each example does alone. Without all of F at once, its examples have no curvature
either: by Woodbury's identity,

    (ΦᵀWΦ − Φ_FᵀW_FΦ_F + λI)⁻¹ Φ_Fᵀ q_F = (ΦᵀWΦ + λI)⁻¹ Φ_Fᵀ (I − W_F H_F)⁻¹ q_F,
    H_F = Φ_F (ΦᵀWΦ + λI)⁻¹ Φ_Fᵀ,

so only the weights of the sum change (`together`). Examples that say the same, such as statements
of a fact, do much more together than the sum of what each does.

One backward pass over the training examples gives v. One forward pass with derivatives gives the
change of all class logits. No score is ever formed, however many examples and classes there are.
u comes from the study's own kernel or features, projected or not; v and the derivative are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from engine.attribution.trak.gradients import OutputModule, differentiable_attention
from engine.attribution.trak.kernel import Batches
from engine.attribution.trak.linear_system import example_weights
from engine.attribution.trak.plan import Batch, Output, in_order, rows_of
from engine.attribution.trak.primal import gram_factor
from engine.attribution.trak.solver import Solver

Logits = Callable[[nn.Module, Batch], Tensor]
"""(model, batch) → `[batch, classes]`."""


def together(weights: Tensor, left: Tensor) -> Tensor:
    """Weights `[k]` with which the examples in F do what their removal at once does.

    Args:
        weights: Their weights if each were removed alone, `[k]`.
        left: I − W_F H_F `[k, k]`, from `dual_left` or `primal_left`.
    """
    solved: Tensor = torch.linalg.solve(left.double(), weights.double())
    return solved.to(weights)


def dual_left(inverse: Tensor, ridge: float) -> Tensor:
    """I − W_F H_F `[k, k]` with a dual solver.

    Args:
        inverse: Rows and columns of F of the inverse, `[k, k]`.
        ridge: λ. Both are from `engine.attribution.trak.new_examples.dual_inverse`.
    """
    return ridge * inverse.T


def primal_left(features: Tensor, gram: Tensor, solver: Solver, curvature: Tensor | None) -> Tensor:
    """I − W_F H_F `[k, k]` with the primal solver.

    Args:
        features: Of the examples in F, `[k, p]`.
        gram: As in `primal_coefficients`.
        curvature: W_F, `[k]`; None for weights of 1.
    """
    solved = torch.cholesky_solve(features.T, gram_factor(gram, solver.damping))
    hat = features @ solved
    return torch.eye(len(hat)) - (hat if curvature is None else curvature[:, None] * hat)


def dual_coefficients(inverse: Tensor, weights: Tensor) -> Tensor:
    """u `[n_train]` with a dual solver.

    Args:
        inverse: From `engine.attribution.trak.new_examples.dual_inverse`.
        weights: `[n_train]`: the factor of the scores (Q^t times the unit) for the examples in F,
            0 for all others.
    """
    return inverse.T @ weights


def primal_coefficients(
    blocks: Callable[[], Iterator[Tensor]],
    gram: Tensor,
    solver: Solver,
    out_to_loss: Tensor,
    weights: Tensor,
) -> Tensor:
    """u `[n_train]` with the primal solver: (q − WΦ (ΦᵀWΦ + λI)⁻¹ Φᵀq) / λ, by Woodbury.

    Args:
        blocks: Stored features of the training examples `[rows, p]`, in order.
        gram: ΦᵀWΦ `[p, p]`, from `engine.attribution.trak.primal.gram`.
        solver: The study's.
        out_to_loss: Q of the training examples at this checkpoint, `[n_train]`.
        weights: As in `dual_coefficients`.
    """
    solved, ridge = _solved(blocks, gram, solver, weights)
    pulled = torch.cat([block @ solved for block in blocks()])
    curvature = example_weights(out_to_loss, solver)
    return (weights - (pulled if curvature is None else curvature * pulled)) / ridge


def sampled_coefficients(
    blocks: Callable[[], Iterator[Tensor]],
    curvature: Callable[[], Iterator[Tensor]],
    gram: Tensor,
    solver: Solver,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """(u `[n_train]`, z `[samples, n_train]`) with sampled curvature, by Woodbury.

    With rows C of random gradients, v = (CᵀC + λI)⁻¹ Φᵀq = Φᵀu + Cᵀz has u = q / λ and
    z = −C (CᵀC + λI)⁻¹ Φᵀq / λ: see `Solver.samples`.

    Args:
        blocks: As in `primal_coefficients`.
        curvature: Stored random gradients `[samples · rows, p]` of the same blocks of examples.
        gram: CᵀC `[p, p]`.
        solver: The study's.
        weights: As in `dual_coefficients`.
    """
    solved, ridge = _solved(blocks, gram, solver, weights)
    pulled = torch.cat([(c @ solved).view(solver.samples, -1) for c in curvature()], dim=1)
    # Stored rows are divided by the root of the number of samples, gradients in `direction` not.
    return weights / ridge, -pulled / (ridge * solver.samples**0.5)


def _solved(
    blocks: Callable[[], Iterator[Tensor]], gram: Tensor, solver: Solver, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """((gram + λI)⁻¹ Φᵀq `[p]`, λ). Arguments as in `primal_coefficients`."""
    parts = weights.split([len(block) for block in blocks()])
    summed = torch.stack([b.T @ q for b, q in zip(blocks(), parts, strict=True)]).sum(dim=0)
    solved = torch.cholesky_solve(summed[:, None], gram_factor(gram, solver.damping))[:, 0]
    return solved, solver.damping * gram.diagonal().mean()


def direction(
    model: nn.Module, output: Output, train: Batches, coefficients: Tensor
) -> dict[str, Tensor]:
    """v by parameter name: the gradient of Σ_j u_j f(z_j), in one pass over the training examples.

    Args:
        model: In eval mode.
        output: The task's model output f.
        train: Training examples.
        coefficients: u `[n_train]`.
    """
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    row = 0
    for batch in train():
        some = coefficients[rows_of(batch, row)]
        row += len(some)
        if not some.any():  # of a sum over few examples, most batches have none
            continue
        with torch.enable_grad():
            values = output(model, batch)
            found = torch.autograd.grad(
                some.to(values) @ values, list(parameters.values()), materialize_grads=True
            )
        for sum_, gradient in zip(total.values(), found, strict=True):
            sum_ += gradient
    return total


def derivative(
    model: nn.Module, logits: Logits, batches: Iterator[Batch], along: dict[str, Tensor]
) -> Tensor:
    """Derivative of every class logit along a direction of the parameters: `[n, classes]`.

    Args:
        model: In eval mode.
        logits: Gives the class logits of a batch.
        batches: The examples.
        along: Direction by parameter name, from `direction`; 0 for parameters it leaves out.
    """
    found, rows = [], []
    for batch in batches:
        with torch.no_grad():
            found.append(value_and_derivative(model, logits, batch, along)[1])
        rows.append(rows_of(batch, 0))
    return in_order(found, rows)


def value_and_derivative(
    model: nn.Module, logits: Logits, batch: Batch, along: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Class logits of a batch, and their derivative along a direction, as in `derivative`."""
    parameters = dict(model.named_parameters())
    tangents = {name: along.get(name, torch.zeros_like(p)) for name, p in parameters.items()}

    def call(swapped: dict[str, Tensor]) -> Tensor:
        called = OutputModule(model, logits)
        named = {f"model.{name}": tensor for name, tensor in swapped.items()}
        answer: Tensor = torch.func.functional_call(called, named, (batch,))
        return answer

    with differentiable_attention():
        found = torch.func.jvp(call, (parameters,), (tangents,))
    return found[0], found[1]
