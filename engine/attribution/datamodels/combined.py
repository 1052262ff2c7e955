"""One prior from several attributions, such as replay and TRAK, for the hybrid.

Replay is exact for one model; TRAK averages what several models have in common. Their errors
differ, so a sum of both predicts removals better than either (DESIGN section 5, *Replay*; measured
in `benchmarks/replay.py`). The hybrid (`engine.attribution.datamodels.hybrid`) takes such a sum as
it takes TRAK's scores:

    tau = combine_attributions([replay, trak], masks, outputs)
    posterior = fit(tau * output_units(tau, masks, outputs, settings.ridge), ...)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_SHRINK = 0.1
"""How strongly shares are held at equal ones, as a part of the evidence of all targets."""


def combine_attributions(
    attributions: Sequence[Tensor], masks: Tensor | None = None, outputs: Tensor | None = None
) -> Tensor:
    """Sum of attributions, each standardized for each target, with fitted shares.

    Shares are the same for all targets, 0 or more, and minimize the squared error of the
    standardized outputs of the runs, held at equal shares: with few runs it is the plain sum.

    Args:
        attributions: Of the same targets and training examples, `[t, n]` each, in any units.
        masks: Of subset runs, `[m, n]`. None: equal shares.
        outputs: Of those runs, `[m, t]`.

    Returns:
        `[t, n]`, where an average row has the mean square that it has in the first attributions.
    """
    standardized = [one / _root_mean_square(one) for one in attributions]
    shares = torch.ones(len(attributions)).to(standardized[0]) / len(attributions)
    if masks is not None and outputs is not None:
        shares = _shares(standardized, masks, outputs)
    total = sum(
        (share * one for share, one in zip(shares, standardized, strict=True)),
        torch.zeros_like(standardized[0]),
    )
    return total * _root_mean_square(attributions[0])


def _shares(standardized: Sequence[Tensor], masks: Tensor, outputs: Tensor) -> Tensor:
    x = masks.float() - masks.float().mean(dim=0)
    actual = (outputs - outputs.mean(dim=0)).T
    actual = actual / actual.std(dim=1, keepdim=True).clamp(min=_LEAST)
    found = [one @ x.T for one in standardized]
    predicted = torch.stack([one.flatten() for one in found])  # [attributions, targets × runs]
    count = len(predicted)
    gram, along = predicted @ predicted.T, predicted @ actual.flatten()
    equal = torch.ones(count).to(gram) / count
    # The scale of equal shares is fitted; then shares may differ from it where runs say so.
    scale = (equal @ along / (equal @ gram @ equal).clamp(min=_LEAST)).clamp(min=0)
    held = _SHRINK * gram.diagonal().mean() * torch.eye(count).to(gram)
    chosen = torch.ones(count, dtype=torch.bool, device=gram.device)
    shares = torch.zeros_like(equal)
    target = along + held @ (scale * equal)
    while bool(chosen.any()):
        rows = chosen.nonzero()[:, 0]
        part = torch.linalg.solve((gram + held)[rows][:, rows], target[rows])
        if bool((part >= 0).all()):
            shares[rows] = part
            break
        chosen[rows[part.argmin()]] = False
    total = shares.sum()
    return shares / total if total > 0 else equal


def _root_mean_square(scores: Tensor) -> Tensor:
    return scores.square().mean(dim=1, keepdim=True).sqrt().clamp(min=_LEAST)


_LEAST = 1e-30
