"""Plan the removals that sizes of effects are fitted to (`effect_sizes`).

One training tells about many test examples if it leaves out the strongest supporters of several at
once, and little of the data. So a planned removal goes through test examples in random order and
adds the 50, 20, 5, 5, 5, 1, 1, … strongest supporters of the next one, until a twentieth of the
data is removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIZES = (50, 20, 5, 5, 5, *[1] * 10)
"""How many supporters of each test example are removed, again and again in this order."""
MOST = 0.05
"""Largest share of the training examples that a planned removal leaves out."""


@dataclass(frozen=True)
class PlannedRemoval:
    """Training examples to leave out.

    Attributes:
        rows: Training rows, ascending int64 `[k]`; empty if no test example has supporters.
        targets: Test rows whose strongest supporters are among them, int64, in the order drawn.
    """

    rows: np.ndarray
    targets: np.ndarray


def plan_removal(
    supporters: np.ndarray, groups: np.ndarray, seed: int, number: int
) -> PlannedRemoval:
    """Plan one removal.

    Args:
        supporters: Training rows with the largest scores of each test example, strongest first,
            `[n_test, k]`; −1 after the last one.
        groups: Number of the group of each training example, such as its class, `[n_train]`.
            Every group keeps an example.
        seed: Of the study.
        number: Of the removal.
    """
    order = np.argsort(np.random.PCG64([seed, number]).random_raw(len(supporters)), kind="stable")
    most = max(1, int(MOST * len(groups)))
    left = np.bincount(groups)
    removed, targets = np.zeros(len(groups), bool), []
    for place, test in enumerate(order):
        room = most - int(removed.sum())
        if not room:
            break
        wanted = supporters[test, : SIZES[place % len(SIZES)]]
        wanted = wanted[wanted >= 0]
        new = wanted[~removed[wanted]]
        lost = np.bincount(groups[new], minlength=len(left))
        if not len(wanted) or len(new) > room or ((lost > 0) & (lost >= left)).any():
            continue
        removed[new] = True
        left -= lost
        targets.append(test)
    return PlannedRemoval(np.flatnonzero(removed), np.array(targets, np.int64))
