"""The prior from several attributions, against both of them, by simulation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.attribution.datamodels.combined import combine_attributions
from engine.attribution.datamodels.hybrid import Settings, fit, output_units
from engine.attribution.evaluation.lds import lds

TARGETS, N_TRAIN, RUNS = 24, 300, 60


def simulated(errors: tuple[float, ...]) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
    """Attributions with errors of these sizes in units of their own, and runs of the truth."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    truth = normal(TARGETS, N_TRAIN) ** 3  # few weights are large
    found = [
        5.0**number * (truth / truth.std() + error * normal(TARGETS, N_TRAIN))
        for number, error in enumerate(errors)
    ]
    masks, new = ((torch.rand(RUNS, N_TRAIN, generator=generator) < 0.5).float() for _ in range(2))
    outputs = masks @ truth.T
    return found, masks, outputs + outputs.std() * normal(RUNS, TARGETS), new, new @ truth.T


def quality(tau: Tensor, masks: Tensor, outputs: Tensor) -> float:
    return lds(tau.double().numpy(), masks.bool().numpy(), outputs.numpy()).mean


@pytest.mark.parametrize(
    ("errors", "with_runs"),
    [((1.0, 1.0), False), ((1.0, 1.0), True), ((0.7, 1.4), True), ((1.4, 0.7), True)],
)
def test_a_sum_is_better_than_both(errors: tuple[float, ...], with_runs: bool) -> None:
    parents, masks, outputs, new, truth = simulated(errors)
    both = combine_attributions(parents, *((masks, outputs) if with_runs else ()))
    assert quality(both, new, truth) > max(quality(one, new, truth) for one in parents)
    settings = Settings(ridge=10.0, flat=0.3, noise=1.0)

    def fitted(tau: Tensor) -> float:
        prior = tau * output_units(tau, masks, outputs, settings.ridge)
        return quality(fit(prior, masks, outputs, settings).weights, new, truth)

    assert fitted(both) > max(fitted(one) for one in parents)


def test_runs_take_the_share_from_attributions_that_say_nothing() -> None:
    parents, masks, outputs, new, truth = simulated((1.0, 100.0))
    both = combine_attributions(parents, masks, outputs)
    assert quality(both, new, truth) > quality(parents[0], new, truth) - 0.02
    plain = combine_attributions(parents)
    assert quality(both, new, truth) > quality(plain, new, truth) + 0.05


def test_units_are_those_of_the_first() -> None:
    parents, *_ = simulated((1.0, 1.0))
    alone = combine_attributions([parents[0], torch.zeros_like(parents[1])])
    assert torch.allclose(2 * alone, parents[0], rtol=1e-4)
    rescaled = combine_attributions([parents[0], 1e6 * parents[1]])
    assert torch.allclose(rescaled, combine_attributions(parents), rtol=1e-3)
