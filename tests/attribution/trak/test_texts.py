"""TRAK of a small BERT equals the dense computation, in whatever batches texts come."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.attribution.trak.dual import attribute_dual
from engine.attribution.trak.kernel import NO_LIMIT, Batches, first_examples, make_kernel
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.new_examples import make_feature_extractor
from engine.attribution.trak.plan import ROWS
from engine.attribution.trak.projection import features
from engine.attribution.trak.removal_direction import derivative, direction
from engine.attribution.trak.solver import Solver
from engine.models.calling import call
from engine.training.length_buckets import length_buckets
from tests.builders.exact_gradients import autograd_rows, dense_trak
from tests.builders.small_transformers import build, margin, texts

N_TRAIN, N_TEST = 20, 6
ALL = texts(N_TRAIN + N_TEST)
TRAIN, TEST = slice(0, N_TRAIN), slice(N_TRAIN, None)


def in_order(rows: slice) -> Batches:
    """Batches of four texts, padded to the longest of all."""
    part = {name: tensor[rows] for name, tensor in ALL.items()}
    size = len(part["label"])

    def batches() -> Iterator[dict[str, Tensor]]:
        for start in range(0, size, 4):
            yield {name: tensor[start : start + 4] for name, tensor in part.items()}

    return batches


def by_length(rows: slice) -> Batches:
    """Batches of four texts of about one length, without padding that none of them needs."""
    part = {name: tensor[rows] for name, tensor in ALL.items()}
    lengths = part["attention_mask"].sum(1)

    def batches() -> Iterator[dict[str, Tensor]]:
        for chosen in length_buckets(lengths.numpy(), 4):
            cut = int(lengths[chosen].max())
            batch = {name: part[name][chosen] for name in part}
            cut_off = {name: tensor[:, :cut] for name, tensor in batch.items() if tensor.ndim == 2}
            yield {**batch, **cut_off, ROWS: torch.from_numpy(chosen)}

    return batches


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build("bert")


@pytest.fixture(scope="module")
def exact(model: nn.Module) -> Tensor:
    rows = autograd_rows(model, margin, ALL)
    return torch.cat([gradient.flatten(1) for gradient in rows.values()], 1)


def scored(kind: str) -> Solver:
    return Solver(kind, 10**6, 10**6, 1.0, "", 1.0, "plain")  # type: ignore[arg-type]


@pytest.mark.parametrize("batches", [in_order, by_length])
def test_scores_are_those_of_dense_gradients(
    model: nn.Module, exact: Tensor, batches: Callable[[slice], Batches]
) -> None:
    found = attribute_dual(
        model, margin, batches(TRAIN), batches(TEST), scored("dual-exact"), 0, NO_LIMIT
    )
    wanted = dense_trak(exact[TRAIN], exact[TEST], damping=1.0).float()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_features_come_in_the_order_of_the_examples(model: nn.Module) -> None:
    plan = plan_gradients(model, margin, first_examples(in_order(TRAIN)))
    projection = make_projection(plan, model, 200, 64, seed=1)
    one, other = (
        torch.cat(list(features(model, margin, batches(TRAIN)(), projection)))
        for batches in (in_order, by_length)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    extractor = make_feature_extractor(model, margin, plan, scored("dual-exact"), seed=1)
    kept, sorted_ = (extractor.extract_all(b(TRAIN)()) for b in (in_order, by_length))
    assert {name.partition(".")[0] for name in kept} == {"features", "inputs", "gradients"}
    for name, array in kept.items():
        np.testing.assert_allclose(sorted_[name], array, rtol=1e-4, atol=1e-5)


def test_a_narrow_kernel_in_parts_is_that_of_its_features(model: nn.Module) -> None:
    plan = plan_gradients(model, margin, first_examples(in_order(TRAIN)))
    few = 8 * N_TRAIN * (N_TRAIN + N_TEST) + 4 * (N_TRAIN + N_TEST) * 50
    whole, parts = (
        make_kernel(model, margin, batches(TRAIN), batches(TEST), plan, 300, 0, memory)
        for batches, memory in ((in_order, NO_LIMIT), (by_length, few))
    )
    torch.testing.assert_close(parts.train, whole.train, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts.test, whole.test, rtol=1e-4, atol=1e-4)


def test_the_effect_of_a_removal_does_not_depend_on_batches(model: nn.Module) -> None:
    u = torch.linspace(-1, 2, N_TRAIN)
    logits = lambda model, batch: call(model, batch).logits  # noqa: E731
    found = [
        derivative(model, logits, b(TEST)(), direction(model, margin, b(TRAIN), u))
        for b in (in_order, by_length)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    assert found[0].abs().max() > 0
