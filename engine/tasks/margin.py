"""The margin, which is the model output of every classification task, and its loss.

f(z; θ) = logit_y − logsumexp of the other logits = log (p_y / (1 − p_y))

(TRAK, Park et al. 2023, section 3.2). The cross entropy is softplus(−f), so |dloss/df| = 1 − p_y.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from engine.models.answers import logits_of
from engine.models.calling import call

if TYPE_CHECKING:
    from engine.attribution.trak.plan import Batch


def margin(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Margins `[batch]` of logits `[batch, classes]` at labels `[batch]` (int64).

    Numerically stable: p is never computed, so a confident model does not give infinity, as
    log p − log(1 − p) would. Works under torch.func.vmap.
    """
    is_label = torch.arange(logits.shape[-1], device=logits.device) == label.unsqueeze(-1)
    own = logits.gather(-1, label.unsqueeze(-1)).squeeze(-1)
    return own - logits.masked_fill(is_label, -torch.inf).logsumexp(-1)


def margin_to_loss(margins: torch.Tensor) -> torch.Tensor:
    """Q = |d cross entropy / d margin| = 1 − p_y `[batch]`, from margins `[batch]`."""
    return torch.sigmoid(-margins)


def predict(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Logits `[batch, classes]` of a prepared batch."""
    return logits_of(call(model, batch))


def loss(model: torch.nn.Module, batch: Batch, label_smoothing: float) -> torch.Tensor:
    """Cross entropies `[batch]` of a prepared batch."""
    return functional.cross_entropy(
        predict(model, batch), batch["label"], reduction="none", label_smoothing=label_smoothing
    )


def model_output(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Margins `[batch]` of the labels in the batch."""
    return margin(predict(model, batch), batch["label"])
