"""Unlearning methods: names, hyper-parameters to try, and how cost is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

UNCHANGED = "nothing"
"""The method that leaves the originals unchanged. Every audit includes it, for comparison."""
BUDGET = 0.05
"""Share of a retraining that a method may take."""
FORWARD = 1 / 3
"""Cost of a forward pass, where forward and backward together cost 1."""

NEWTON_ITERATIONS = 20
"""Conjugate gradient steps of a Newton step. On the MLP of benchmarks/unlearning, 12, 20 and 30
steps leave .24, .24 and .24 of the variance of the actual change unpredicted without 250 of 5,000
examples along a direction, and .43, .38 and .38 without 250 random ones."""


@dataclass(frozen=True)
class Hyper:
    """Hyper-parameters of a method, chosen on validation examples.

    Attributes:
        learning_rate: Learning rate of the first step.
        forget_share: Share of a batch that comes from the forget set, where batches are mixed.
        scale: Factor on predicted changes.
        weight: Weight of the loss on the forget set, next to the loss on the retain set.
        batch: Examples in a step.
    """

    learning_rate: float = 0.01
    forget_share: float = 0.25
    scale: float = 1.0
    weight: float = 0.1
    batch: int = 64

    @classmethod
    def from_dict(cls, content: Mapping[str, float]) -> Hyper:
        """From JSON."""
        return cls(**{**content, "batch": int(content["batch"])})  # type: ignore[arg-type]


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
        """As a share of a retraining that takes this many example-gradients."""
        return (self.gradients + FORWARD * self.forwards) / retraining


_RATES = (0.001, 0.003, 0.01, 0.03)
_MATCHED = 16
"""Examples in a step of matching."""
_TWO_LOSSES = [
    Hyper(learning_rate=rate, weight=weight)
    for rate, weight in product((0.0003, *_RATES), (0.01, 0.03, 0.1, 0.3, 1.0))
]
GRIDS: Mapping[str, Sequence[Hyper]] = {
    UNCHANGED: [Hyper()],
    "finetune": [Hyper(learning_rate=rate) for rate in (0.0003, *_RATES, 0.1)],
    "ascent": [
        Hyper(learning_rate=rate) for rate in (0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003)
    ],
    "both": _TWO_LOSSES,
    "scrub": _TWO_LOSSES,
    "matching": [
        Hyper(rate, share, scale, batch=_MATCHED)
        for scale, (rate, share) in product(
            (1.0, 0.7, 1.4), ((0.01, 0.5), (0.01, 0.75), (0.003, 0.75))
        )
    ],
    "oracle": [Hyper(rate, 0.5, batch=_MATCHED) for rate in (0.01, 0.003)],
}
"""Methods, and the hyper-parameters to try for each. The first are used where none is chosen."""

TOKEN_GRIDS: Mapping[str, Sequence[Hyper]] = {
    **GRIDS,
    "matching": [
        Hyper(rate, share, batch=_MATCHED) for rate, share in product((0.0003, 0.0001), (0.25, 0.5))
    ],
    "oracle": [Hyper(rate, 0.5, batch=_MATCHED) for rate in (0.001, 0.0003)],
}
"""In place of `GRIDS` where log-odds of tokens are matched. Rates that suit class logits break a
small T5: 0.001 forgets no more than 0.0003 and costs five points of accuracy on all else. The scale
is measured (`engine.applications.unlearning.predicted_size`)."""

ERROR_GRIDS: Mapping[str, Sequence[Hyper]] = {
    **GRIDS,
    "matching": [
        Hyper(rate, 0.5, scale, batch=_MATCHED)
        for scale, rate in product((1.0, 1.5), (0.1, 0.03, 0.3))
    ],
    "oracle": [Hyper(rate, 0.5, batch=_MATCHED) for rate in (0.1, 0.03, 0.3)],
}
"""In place of `GRIDS` where errors of denoising are matched, which change by hundredths."""

OF_CLASSES = ("scrub",)
"""Methods that compare probabilities of classes."""

TITLES: Mapping[str, tuple[str, str]] = {
    UNCHANGED: ("Doing nothing", "leaves the model as it is"),
    "finetune": ("Fine-tuning", "keeps training on the retain set"),
    "ascent": ("Gradient ascent", "increases the loss on the forget set"),
    "both": (
        "Ascent and descent",
        "increases the loss on the forget set, decreases it on the retain set",
    ),
    "scrub": (
        "SCRUB",
        "moves away from the original model on the forget set, stays close to it on the retain set",
    ),
    "matching": ("Datamodel matching", "trains toward the outputs that attributions predict"),
    "oracle": (
        "Oracle matching",
        "trains toward the outputs of retrained models: the best possible target",
    ),
}
"""Title of each method, and what it does in a few words."""
