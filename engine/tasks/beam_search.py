"""The likeliest texts that a model generates, keeping several partial texts at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def beam_search(
    following: Callable[[Tensor], Tensor], rows: int, beams: int, longest: int, end: Tensor
) -> tuple[Tensor, Tensor]:
    """Texts of each row, the likeliest first, each another one.

    Texts that have ended compete with those that go on by their log-likelihood, whatever their
    lengths. It is exact where `beams` are as many as there are partial texts.

    Args:
        following: Partial texts `[rows, k, tokens]` → log-probabilities of the token that follows
            `[rows, k, vocabulary]`. Behind the end of a text stands 0.
        rows: Number of rows.
        beams: Partial texts that are kept.
        longest: The most tokens of a text, its end included.
        end: Id of the token that ends a text, `[]`; −1 if there is none.

    Returns:
        Token ids `[rows, k, longest]`, −1 behind the end, and log-likelihoods `[rows, k]`; −inf
        where there is no such text.
    """
    ids = end.new_zeros(rows, 1, 0)
    scores = torch.zeros(rows, 1, device=end.device)
    ended = torch.zeros(rows, 1, dtype=torch.bool, device=end.device)
    while ids.shape[2] < longest and not bool(ended.all()):
        found = following(ids.clamp(min=0)).float().masked_fill(ended[..., None], -torch.inf)
        found[..., 0] = torch.where(ended, 0.0, found[..., 0])
        vocabulary = found.shape[2]
        total = (scores[..., None] + found).flatten(1)
        scores, best = total.topk(min(beams, total.shape[1]))
        before = best // vocabulary
        ended = ended.gather(1, before)
        token = (best % vocabulary).masked_fill(ended, -1)
        kept = ids.gather(1, before[..., None].expand(-1, -1, ids.shape[2]))
        ids = torch.cat([kept, token[..., None]], 2)
        ended |= token == end
    return functional.pad(ids, (0, longest - ids.shape[2]), value=-1), scores
