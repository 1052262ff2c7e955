"""The optimizers' update rules, and how a derivative passes back through one update.

An update takes a parameter p, the optimizer's moments and a gradient g to a new parameter and new
moments, element by element. Given the derivatives of an output by the new ones (*adjoints*),
`pull_back` gives those by the old ones and by g. A leading dimension of the adjoints holds several
outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Moments = dict[str, Tensor]
"""What an optimizer keeps of one parameter, by torch's names; or the adjoints of that."""

NORM_EPSILON = 1e-6
"""What `torch.nn.utils.clip_grad_norm_` adds to a norm."""


class Update(Protocol):
    """The update of one parameter in one step."""

    def pull_back(
        self, parameter: Tensor, moments: Moments, gradient: Tensor, before: Mapping[str, Tensor]
    ) -> Tensor:
        """Turn adjoints of what is after the update, in place, into those of what was before.

        Args:
            parameter: Adjoints of the parameter `[outputs, ...]`.
            moments: Adjoints of the moments, `[outputs, ...]` each.
            gradient: The gradient, clipped.
            before: The moments before the update; empty before the first one.

        Returns:
            Adjoints of the gradient `[outputs, ...]`.
        """


@dataclass(frozen=True)
class Sgd:
    """g += decay · p;  m = momentum · m + g;  p −= rate · (g + momentum · m, or m, or g).

    The update is linear, so its derivative needs no moments. The first step has m = g, which is the
    same with m = 0 before.
    """

    rate: float
    decay: float
    momentum: float
    nesterov: bool

    def pull_back(
        self, parameter: Tensor, moments: Moments, gradient: Tensor, before: Mapping[str, Tensor]
    ) -> Tensor:
        if not self.momentum:
            of_gradient = -self.rate * parameter
        else:
            buffer = moments["momentum_buffer"]
            if self.nesterov:
                buffer.add_(parameter, alpha=-self.rate * self.momentum)
                of_gradient = torch.add(buffer, parameter, alpha=-self.rate)
            else:
                buffer.add_(parameter, alpha=-self.rate)
                of_gradient = buffer.clone()
            buffer.mul_(self.momentum)
        if self.decay:
            parameter.add_(of_gradient, alpha=self.decay)
        return of_gradient


@dataclass(frozen=True)
class AdamW:
    """p *= 1 − rate · decay;  m = β₁ m + (1 − β₁) g;  v = β₂ v + (1 − β₂) g²;
    p −= rate · m̂ / (√v̂ + ε), with m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ).

    Where v is 0 there has been no gradient: the derivative by v, times that of v by g = 0, is 0.
    """

    rate: float
    decay: float
    betas: tuple[float, float]
    epsilon: float
    step: int
    """Number t of this update of the parameter, from 1."""

    def pull_back(
        self, parameter: Tensor, moments: Moments, gradient: Tensor, before: Mapping[str, Tensor]
    ) -> Tensor:
        one, two = self.betas
        first, second = gradient * (1 - one), gradient.square() * (1 - two)
        if before:
            first, second = first + one * before["exp_avg"], second + two * before["exp_avg_sq"]
        scale = self.rate / (1 - one**self.step)
        root = (second / (1 - two**self.step)).sqrt()
        below = root + self.epsilon
        by_root = scale * first / below.square() / (2 * (1 - two**self.step) * root)
        by_root = torch.where(root > 0, by_root, 0.0)
        of_first, of_second = moments["exp_avg"], moments["exp_avg_sq"]
        of_first.addcmul_(parameter, (scale / below).expand_as(parameter), value=-1)
        of_second.addcmul_(parameter, by_root.expand_as(parameter))
        of_gradient = (1 - one) * of_first
        of_gradient.addcmul_(of_second, gradient.expand_as(of_second), value=2 * (1 - two))
        of_first.mul_(one)
        of_second.mul_(two)
        if self.decay:
            parameter.mul_(1 - self.rate * self.decay)
        return of_gradient


MOMENTS = {Sgd: ("momentum_buffer",), AdamW: ("exp_avg", "exp_avg_sq")}


def moments_of(update: Update) -> tuple[str, ...]:
    """Names of what an update keeps from one step to the next."""
    if isinstance(update, Sgd) and not update.momentum:
        return ()
    return MOMENTS[type(update)]  # type: ignore[index]


def needs_moments(update: Update) -> bool:
    """Whether the derivative of an update depends on the moments before it."""
    return not isinstance(update, Sgd)


def clipped(gradients: list[Tensor], most: float | None) -> tuple[list[Tensor], float]:
    """Gradients scaled down to a norm of `most`, as torch does it, and the scale."""
    if most is None:
        return gradients, 1.0
    norm = _norm(gradients)
    scale = min(1.0, most / (norm + NORM_EPSILON))
    return ([gradient * scale for gradient in gradients] if scale < 1 else gradients), scale


def pull_back_clipping(adjoints: list[Tensor], gradients: list[Tensor], most: float | None) -> None:
    """Turn adjoints `[outputs, ...]` of clipped gradients, in place, into those of the gradients.

    Args:
        gradients: Before clipping.
        most: Largest norm; None: no clipping.
    """
    if most is None:
        return
    norm = _norm(gradients)
    scale = most / (norm + NORM_EPSILON)
    if scale >= 1:
        return
    along = torch.stack(
        [one.flatten(1) @ g.flatten() for one, g in zip(adjoints, gradients, strict=True)]
    ).sum(0)  # [outputs]
    by_norm = -most / (norm + NORM_EPSILON) ** 2 / norm
    for one, gradient in zip(adjoints, gradients, strict=True):
        one.mul_(scale)
        one.add_((by_norm * along).view(-1, *[1] * gradient.ndim) * gradient)


def _norm(gradients: list[Tensor]) -> float:
    return float(torch.stack([gradient.norm() for gradient in gradients]).norm())
