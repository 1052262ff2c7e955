"""What the methods of unlearning are called, what can be chosen of each, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

FORWARD = 1 / 3
"""What a forward pass costs, where forward and backward together cost 1."""


@dataclass(frozen=True)
class Hyper:
    """What is searched for on validation examples.

    Attributes:
        learning_rate: Of the first step.
        forget_share: Share of a batch that comes from the forget set, where batches are mixed.
        scale: What predicted changes are multiplied by.
        weight: Of the loss that drives away, beside the one that holds.
    """

    learning_rate: float = 0.01
    forget_share: float = 0.25
    scale: float = 1.0
    weight: float = 0.1


@dataclass(frozen=True)
class Cost:
    """Work, in examples.

    Attributes:
        gradients: Examples passed forward and backward.
        forwards: Examples passed forward only.
    """

    gradients: int = 0
    forwards: int = 0

    def share(self, retraining: int) -> float:
        """As a share of a retraining with so many example-gradients."""
        return (self.gradients + FORWARD * self.forwards) / retraining


_RATES = (0.001, 0.003, 0.01, 0.03)
_AWAY = [
    Hyper(learning_rate=rate, weight=weight)
    for rate, weight in product((0.0003, *_RATES), (0.01, 0.03, 0.1, 0.3, 1.0))
]
GRIDS: Mapping[str, Sequence[Hyper]] = {
    "nothing": [Hyper()],
    "finetune": [Hyper(learning_rate=rate) for rate in (0.0003, *_RATES, 0.1)],
    "ascent": [
        Hyper(learning_rate=rate) for rate in (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003)
    ],
    "both": _AWAY,
    "scrub": _AWAY,
    "matching": [
        Hyper(learning_rate=rate, forget_share=share, scale=scale)
        for rate, share, scale in product((*_RATES, 0.1), (0.25, 0.5), (0.5, 0.7, 1.0, 1.4, 2.0))
    ],
    "oracle": [Hyper(rate, share) for rate, share in product((*_RATES, 0.1), (0.25, 0.5))],
}
"""Methods, and what is tried for each."""

TITLES: Mapping[str, tuple[str, str]] = {
    "nothing": ("Doing nothing", "leaves the model as it is"),
    "finetune": ("Fine-tuning", "learns on with what is kept"),
    "ascent": ("Gradient ascent", "unlearns the labels of what is forgotten"),
    "both": ("Ascent and descent", "unlearns those and learns on with what is kept"),
    "scrub": ("SCRUB", "away from itself on what is forgotten, near itself on what is kept"),
    "matching": ("Datamodel matching", "learns to say what attributions foretell"),
    "oracle": ("Oracle matching", "learns to say what retrained models say: the best it could do"),
}
"""What people call each, and what it does, in a few words."""
