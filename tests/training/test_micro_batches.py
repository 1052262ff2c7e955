"""Training in micro-batches takes the steps of the whole batch, with fewer examples in memory."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import nn

from engine.models.calling import call
from engine.models.pairs import pairs_of
from engine.store.errors import SpecError
from engine.tasks.contrastive import CAPTION_KEY, PICTURE_KEY, loss, with_keys
from engine.training.micro_batches import InMicroBatches

N = 11


class Towers(nn.Module):
    """Embeds two kinds of inputs; counts how many rows it sees at once."""

    def __init__(self, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Dropout(dropout), nn.Linear(5, 4))
        self.right = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.seen: list[int] = []

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> Any:
        self.seen.append(len(pixel_values))
        return self.norm(self.left(pixel_values)), self.right(input_ids), self.scale


def a_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return with_keys(
        {
            "pixel_values": torch.randn(N, 6, generator=generator),
            "input_ids": torch.randn(N, 3, generator=generator),
            PICTURE_KEY: torch.arange(N),
            CAPTION_KEY: torch.arange(N),
        }
    )


def gradients(model: nn.Module, seen: nn.Module) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss(seen, a_batch(), 0.0).mean(), list(model.parameters())))


@pytest.mark.parametrize("size", [2, 3, 5, 10, 11, 64])
def test_a_contrastive_loss_keeps_all_negatives(size: int) -> None:
    torch.manual_seed(1)
    model = Towers()
    wanted = gradients(model, model)
    model.seen.clear()
    found = gradients(model, InMicroBatches(model, size))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert max(model.seen) <= size
    assert sum(model.seen) == (N if size >= N else 2 * N)


def test_negatives_within_parts_alone_would_be_another_loss() -> None:
    torch.manual_seed(1)
    model, batch = Towers(), a_batch()
    parts = [{name: one[:5] for name, one in batch.items()}]
    parts.append({name: one[5:] for name, one in batch.items()})
    apart = torch.cat([loss(model, part, 0.0) for part in parts]).mean()
    whole = loss(InMicroBatches(model, 5), batch, 0.0).mean()
    assert abs(apart - whole) > 0.1


def test_the_second_pass_draws_the_same_dropout_and_leaves_running_statistics() -> None:
    torch.manual_seed(2)
    model = Towers(norm=True, dropout=0.5).train()
    once = Towers(norm=True, dropout=0.5).train()
    once.load_state_dict(model.state_dict())
    torch.manual_seed(3)
    loss(InMicroBatches(model, 4), a_batch(), 0.0).mean().backward()
    torch.manual_seed(3)
    inputs = {n: one for n, one in a_batch().items() if n in ("pixel_values", "input_ids")}
    answers = [
        call(once, {name: one[start : start + 4] for name, one in inputs.items()})
        for start in (0, 4, 8)
    ]
    pictures, captions = (torch.cat([one[k] for one in answers]) for k in (0, 1))

    class Given(nn.Module):
        def forward(self, **named: torch.Tensor) -> Any:
            return pictures, captions, once.scale

    loss(Given(), a_batch(), 0.0).mean().backward()
    for one, other in zip(model.parameters(), once.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-7)
    for one, other in zip(model.buffers(), once.buffers(), strict=True):
        torch.testing.assert_close(one, other)


Three = namedtuple("Three", ["pictures", "captions", "scale"])
ANSWERS = {
    "tuple": lambda a, b, s: (a, b, s),
    "list": lambda a, b, s: [a, b, s],
    "named tuple": Three,
    "mapping": lambda a, b, s: {"pictures": a, "captions": b, "scale": s},
    "one scale in a vector": lambda a, b, s: (a, b, s.reshape(1)),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_of_every_kind_are_joined(kind: str) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return ANSWERS[kind](x, 2 * x, torch.tensor(4.0))

    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    found, wanted = pairs_of(InMicroBatches(Model(), 3)(x)), pairs_of(Model()(x))
    for one, other in zip(vars(found).values(), vars(wanted).values(), strict=True):
        torch.testing.assert_close(one, other)


def test_what_cannot_be_joined_is_refused() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return object()

    with pytest.raises(SpecError, match=r"micro_batch_size = 3: the model gives object"):
        InMicroBatches(Model(), 3)(torch.zeros(7, 3))
