"""Per-example gradients of transformers agree with autograd, and every parameter has a rule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.attribution.trak.gradients import per_example_gradients
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.projection import project
from tests.builders.exact_gradients import autograd_rows
from tests.builders.small_transformers import (
    LONGEST,
    PICTURE_MODELS,
    TEXT_MODELS,
    build,
    margin,
    pictures,
    texts,
)

MOST_DIFFERENCE = 4e-6


def batches(name: str) -> dict[str, dict[str, Tensor]]:
    """Batches by what is special about them."""
    if name in PICTURE_MODELS:
        return {"pictures": pictures(4)}
    found = {"as many texts as positions": texts(LONGEST), "longer": texts(4, longest=9)}
    if name == "bert":
        found["two segments"] = texts(4, types=True)
    return found


@pytest.mark.input_case
@pytest.mark.parametrize("name", [*TEXT_MODELS, *PICTURE_MODELS])
def test_gradients_agree_with_autograd(name: str) -> None:
    model = build(name)
    cases = batches(name)
    plan = plan_gradients(model, margin, next(iter(cases.values())))
    assert not plan.untapped
    for what, batch in cases.items():
        found = per_example_gradients(model, margin, batch, plan)
        wanted = autograd_rows(model, margin, batch)
        assert list(found) == list(wanted)
        for parameter, gradient in found.items():
            # Biases of keys have gradients of 0 but for rounding, which differs between processors.
            largest = max(wanted[parameter].abs().max().item(), 5e-2)
            error = (gradient - wanted[parameter]).abs().max().item()
            assert error <= MOST_DIFFERENCE * largest, (what, parameter)


class Tied(nn.Module):
    """Word embeddings that are also the weights of a linear layer, positions looked up once."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 8)
        self.positions = nn.Embedding(9, 8)
        self.head = nn.Linear(8, 50, bias=False)
        self.head.weight = self.words.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.words(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        return self.head((hidden.tanh() * attention_mask[..., None]).sum(1))


def first_logit(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["input_ids"], batch["attention_mask"])[:, :5].logsumexp(1)


@pytest.mark.parametrize("name", ["bert", "gpt-2", "vit", "tied"])
def test_an_unprojected_feature_is_the_gradient(name: str) -> None:
    """A width that suffices for all parameters keeps inner products exactly."""
    torch.manual_seed(0)
    model, f = (Tied(), first_logit) if name == "tied" else (build(name), margin)
    batch = pictures(4) if name == "vit" else texts(4)
    plan = plan_gradients(model, f, batch)
    projection = make_projection(plan, model, plan.n_parameters, None, seed=0)
    features = project(model, f, batch, projection)
    exact = torch.cat([rows.flatten(1) for rows in autograd_rows(model, f, batch).values()], 1)
    torch.testing.assert_close(features @ features.T, exact @ exact.T, rtol=1e-4, atol=1e-5)


class Tables(nn.Module):
    """A vocabulary and a table of positions that a text uses little of."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30_000, 32)
        self.positions = nn.Embedding(4_000, 32)
        self.own = nn.Parameter(torch.randn(1, 4_000, 32))
        self.head = nn.Linear(32, 50)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1])[None]
        hidden = self.words(input_ids) + self.positions(places) + self.own[:, : places.numel()]
        return self.head((hidden.tanh() * attention_mask[..., None]).sum(1))


class _Largest(torch.overrides.TorchFunctionMode):
    """Remembers the largest tensor that any operation gave."""

    numel = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_tables_of_embeddings_are_never_dense() -> None:
    """Neither the features nor the plan hold a text's gradient of a whole table."""
    torch.manual_seed(0)
    model, batch = Tables(), texts(16)
    table = model.words.weight.numel()
    with _Largest() as planning:
        plan = plan_gradients(model, first_logit, batch)
    assert not plan.untapped
    assert planning.numel <= 17 * model.own.numel() < 16 * table
    projection = make_projection(plan, model, 4096, None, seed=0)
    assert "positions.weight" in projection.matrices
    assert "own" in projection.matrices
    with _Largest() as featurizing:
        features = project(model, first_logit, batch, projection)
    assert featurizing.numel <= features.numel() + 16 * model.own.numel()
