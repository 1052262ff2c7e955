"""Averaged weights: the exponential moving average of a model over the steps of its training.

After step t the mean becomes d_t · mean + (1 − d_t) · weights, with d_t the smaller of the decay
and (1 + t) / (10 + t), so that the first steps are soon forgotten. Models of diffusion are usually
sampled with such weights (Ho et al. 2020, arXiv 2006.11239).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """The running average of a model's weights and of what else it keeps in floating point.

    Args:
        model: At the start of its training.
        decay: Share of the mean that a step leaves, in the end.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._means = [one.detach().clone() for one in _kept(model)]

    def update(self, model: nn.Module, steps: int) -> None:
        """Take the weights in that there are after so many steps."""
        share = min(self._decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(self._means, _kept(model), 1 - share)

    def put_into(self, model: nn.Module) -> None:
        """Give the model the averaged weights."""
        with torch.no_grad():
            for tensor, mean in zip(_kept(model), self._means, strict=True):
                tensor.copy_(mean)


def _kept(model: nn.Module) -> list[Tensor]:
    """What is averaged: without counters, such as BatchNorm's of batches."""
    return [one.detach() for one in model.state_dict().values() if one.is_floating_point()]
