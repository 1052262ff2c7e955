"""Shares of positions sum to the score and equal a dense computation for each position."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.position_shares import position_shares, projected_direction
from engine.attribution.trak.projection import project
from tests.builders.exact_gradients import autograd_rows
from tests.builders.small_transformers import CLASSES, TEXT_MODELS, build, margin, texts

CLOSE = 1e-4


def random_direction(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(p.shape, generator=generator) for name, p in model.named_parameters()}


def copies_of_weights(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """⟨direction, gradient⟩ of each position, `[batch, length]`, by autograd alone.

    Linear layers, embeddings and norms are computed with a copy of their parameters for every
    example and position, so that autograd gives each position its own gradient.
    """
    size, length = batch["input_ids"].shape
    direction = random_direction(model)
    names = {id(p): name for name, p in model.named_parameters()}
    copies: dict[str, list[Tensor]] = {}

    def copied(parameter: Tensor, lead: torch.Size) -> Tensor:
        copy = parameter.detach().expand(*lead, *parameter.shape).clone().requires_grad_()
        copies.setdefault(names[id(parameter)], []).append(copy)
        return copy

    def forward(layer: nn.Module, a: Tensor, lead: torch.Size) -> Tensor:
        weight = copied(layer.weight, lead)
        if isinstance(layer, nn.Embedding):
            chosen = F.one_hot(a, layer.num_embeddings).float()
            if layer.padding_idx is not None:
                chosen = chosen * (a != layer.padding_idx)[..., None]
            fixed = layer.weight.detach()[a] - chosen @ layer.weight.detach()
            return torch.einsum("...n,...nd->...d", chosen, weight) + fixed
        if isinstance(layer, nn.Linear):
            found = torch.einsum("...i,...oi->...o", a, weight)
            return found if layer.bias is None else found + copied(layer.bias, lead)
        normal = F.layer_norm(a, layer.normalized_shape, eps=layer.eps)
        return normal * weight + copied(layer.bias, lead)

    def replaced(layer: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> Tensor:
        (a,) = args
        lead = result.shape[:-1]
        if len(result) == 1:  # positions, looked up once
            a, lead = a.expand(size, *a.shape[1:]), torch.Size((size, *result.shape[1:-1]))
        new = forward(layer, a, lead)
        torch.testing.assert_close(new, result.expand_as(new), rtol=1e-4, atol=1e-5)
        return new

    handles = [
        layer.register_forward_hook(replaced)
        for layer in model.modules()
        if isinstance(layer, (nn.Linear, nn.Embedding, nn.LayerNorm))
    ]
    value = margin(model, batch).sum()
    for handle in handles:
        handle.remove()
    flat = [(name, copy) for name, found in copies.items() for copy in found]
    gradients = torch.autograd.grad(value, [copy for _, copy in flat])
    shares = torch.zeros(size, length)
    for (name, copy), gradient in zip(flat, gradients, strict=True):
        parts = (gradient * direction[name]).flatten(copy.ndim - direction[name].ndim).sum(-1)
        if parts.ndim == 2:
            shares += parts
        else:
            shares[:, 0] += parts  # the pooler and the head act at [CLS]
    return shares


@pytest.mark.parametrize("name", ["bert", "albert", "distilbert"])
def test_shares_equal_gradients_of_copied_weights(name: str) -> None:
    model, batch = build(name), texts(4)
    plan = plan_gradients(model, margin, batch)
    found = position_shares(model, margin, batch, plan, random_direction(model), length=7)
    wanted = copies_of_weights(model, batch)
    largest = wanted.abs().max().item()
    torch.testing.assert_close(found.positions, wanted, rtol=CLOSE, atol=CLOSE * largest)
    assert not found.whole.any()
    assert (found.positions[batch["attention_mask"] == 0] == 0).all()
    assert (found.positions.abs() > CLOSE * largest)[batch["attention_mask"] == 1].all()


@pytest.mark.input_case
@pytest.mark.parametrize("name", list(TEXT_MODELS))
@pytest.mark.parametrize("proj_dim", [None, 64])
def test_shares_sum_to_the_score(name: str, proj_dim: int | None) -> None:
    model, batch = build(name), texts(4)
    plan = plan_gradients(model, margin, batch)
    projection = make_projection(plan, model, 300, proj_dim, seed=1)
    vector = torch.randn(projection.proj_dim, generator=torch.Generator().manual_seed(2))
    scores = project(model, margin, batch, projection) @ vector
    direction = projected_direction(model, projection, vector)
    found = position_shares(model, margin, batch, plan, direction, length=7)
    close = CLOSE * scores.abs().max().item()
    torch.testing.assert_close(found.positions.sum(1) + found.whole, scores, rtol=0, atol=close)


class Words(nn.Module):
    """Convolutions, norms and attention of PyTorch over words, and a mean of them."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 8, padding_idx=0)
        self.places = nn.Parameter(torch.randn(7, 8))
        self.conv = nn.Conv1d(8, 6, 3, padding=1)
        self.norm = nn.BatchNorm1d(6)
        self.groups = nn.GroupNorm(2, 6)
        self.rms = nn.RMSNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden = self.conv((self.words(input_ids) + self.places).mT)
        hidden = self.rms(self.groups(self.norm(hidden)).tanh().mT)
        return self.head((hidden + self.attention(hidden, hidden, hidden)[0]).mean(1))


def log_odds(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits = model(batch["input_ids"])
    return logits[:, 0] - logits[:, 1:].logsumexp(1)


@pytest.mark.parametrize("width", [60, 10_000])
def test_shares_of_any_layer_sum_to_the_score(width: int) -> None:
    torch.manual_seed(0)
    model = Words().eval()
    model.norm.running_mean.normal_()
    batch = {"input_ids": texts(4)["input_ids"]}
    plan = plan_gradients(model, log_odds, batch)
    projection = make_projection(plan, model, width, None, seed=1)
    vector = torch.randn(projection.proj_dim)
    found = position_shares(
        model, log_odds, batch, plan, projected_direction(model, projection, vector), length=7
    )
    scores = project(model, log_odds, batch, projection) @ vector
    close = CLOSE * scores.abs().max().item()
    torch.testing.assert_close(found.positions.sum(1) + found.whole, scores, rtol=0, atol=close)
    assert found.positions.any(0).all()
    assert found.whole.all()  # the head acts behind a mean


def test_a_direction_in_parameters_scores_gradients_like_features() -> None:
    """Also for convolutions, whose columns are stored in another order."""
    torch.manual_seed(0)
    model = Words().eval()
    batch = {"input_ids": texts(4)["input_ids"]}
    plan = plan_gradients(model, log_odds, batch)
    projection = make_projection(plan, model, 200, 50, seed=1)
    vector = torch.randn(50)
    direction = projected_direction(model, projection, vector)
    scores = sum(
        (rows * direction[name]).flatten(1).sum(1)
        for name, rows in autograd_rows(model, log_odds, batch).items()
    )
    wanted = project(model, log_odds, batch, projection) @ vector
    torch.testing.assert_close(scores, wanted, rtol=CLOSE, atol=CLOSE)
