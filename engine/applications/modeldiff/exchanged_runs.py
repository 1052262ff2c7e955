"""Exchange runs between two banks: banks of the same size that differ by chance alone.

If A and B learn the same, it does not matter which of them made a subset run. So a random half of
A's runs is exchanged for B's runs on the same masks, which keeps the masks and the size of both
banks. A difference between A and B is then spread evenly over both, and cancels.

Outputs of A and B may differ in scale, because one is more confident. They are standardized for
each test example before they are exchanged, and returned in the bank's own scale.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.attribution.datamodels.run_bank import RunBank

FEWEST_MASKS = 6
"""Fewest masks of a bank to fit to, and fewest to choose settings on, of which half are
exchanged."""


def can_exchange(a: RunBank, b: RunBank) -> bool:
    """Whether both banks have enough masks of both kinds."""
    counts = [np.sum(bank.held_out == kind) for bank in (a, b) for kind in (True, False)]
    return bool(min(counts) >= FEWEST_MASKS)


def exchange_runs(
    a: RunBank, b: RunBank, generator: np.random.Generator
) -> tuple[RunBank, RunBank]:
    """Exchange as many runs as leave both with the same share of A's runs.

    Masks that choose settings and other masks are exchanged in the same proportion, row by row:
    banks of one study have the same masks in the same order.
    """
    masks, outputs = ([bank.masks.copy() for bank in (a, b)], [_standard(bank) for bank in (a, b)])
    for kind in (True, False):
        rows_a, rows_b = (np.flatnonzero(bank.held_out == kind) for bank in (a, b))
        shared = min(len(rows_a), len(rows_b))
        count = round(len(rows_a) * len(rows_b) / max(1, len(rows_a) + len(rows_b)))
        chosen = generator.permutation(shared)[:count]
        of_a, of_b = rows_a[chosen], rows_b[chosen]
        for both in (masks, outputs):
            both[0][of_a], both[1][of_b] = both[1][of_b], both[0][of_a]
    found = [
        replace(bank, masks=mask, test=output * _scale(bank) + bank.test.mean(axis=0))
        for bank, mask, output in zip((a, b), masks, outputs, strict=True)
    ]
    return found[0], found[1]


def _standard(bank: RunBank) -> np.ndarray:
    return np.asarray((bank.test - bank.test.mean(axis=0)) / _scale(bank))


def _scale(bank: RunBank) -> np.ndarray:
    """Standard deviation of each test example's outputs; 1 where they do not vary."""
    scale = bank.test.std(axis=0)
    return np.where(scale > 0, scale, 1).astype(np.float32)
