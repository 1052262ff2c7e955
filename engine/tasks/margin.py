"""The margin, the default model output of every classification task, and its gradient Q.

f(z; θ) = logit_y − logsumexp of the other logits = log (p_y / (1 − p_y))

(TRAK, Park et al. 2023, section 3.2). The cross entropy is softplus(−f), so |dloss/df| = 1 − p_y.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    pass


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
