"""Per-example gradients of many architectures agree with autograd, one example at a time.

Written against the largest difference relative to the largest gradient: 4e-6 in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.attribution.trak.gradients import per_example_gradients
from engine.attribution.trak.make_plan import plan_gradients

MOST_DIFFERENCE = 4e-6
BATCH, CLASSES, TOKENS = 4, 3, 11

PICTURES = (2, 8, 8)
SERIES = (2, 9)
SEQUENCES = (5, 8)
VECTORS = (6,)
TEXTS = None
"""Shape of one input; None: token ids."""


class Of(nn.Module):
    """A model made of named parts and a function of them and the input."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def cnn(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(CLASSES))


def head(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(CLASSES))


def conv(*args: int, **options: object) -> nn.Module:
    return nn.Conv2d(*args, **options)  # type: ignore[arg-type]


def attention(m: Of, x: Tensor) -> Tensor:
    found, _ = m.attention(x, x, x, need_weights=False)
    return m.fc(found.mean(1))


def attention_by_hand(m: Of, x: Tensor) -> Tensor:
    q, k, v = m.qkv(x).chunk(3, -1)
    return m.fc(F.scaled_dot_product_attention(q, k, v).mean(1))


def recurrent(m: Of, x: Tensor) -> Tensor:
    states, _ = m.rnn(x)
    return m.fc(states.mean(1))


def bag(m: Of, tokens: Tensor) -> Tensor:
    return m.fc(m.bag(tokens))


def tied(m: Of, tokens: Tensor) -> Tensor:
    hidden = torch.tanh(m.embedding(tokens).mean(1))
    return F.linear(hidden, m.embedding.weight)[:, :CLASSES]


def tied_modules() -> Of:
    """As in T5: the module that owns the table is never called, and others hold it, too."""
    model = Of(
        lambda m, t: m.head(torch.tanh(m.embed(t).mean(1)))[:, :CLASSES],
        owner=nn.Embedding(TOKENS, 4),
        embed=nn.Embedding(TOKENS, 4),
        head=nn.Linear(4, TOKENS, bias=False),
    )
    model.embed.weight = model.head.weight = model.owner.weight
    return model


def class_token(m: Of, x: Tensor) -> Tensor:
    patches = m.patch(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([m.token.expand(len(x), -1, -1), patches], 1) + m.position
    return m.fc(m.block(tokens)[:, 0])


def squeeze(m: Of, x: Tensor) -> Tensor:
    x = m.conv(x)
    gate = torch.sigmoid(m.up(F.relu(m.down(x.mean((2, 3))))))
    return m.fc((x * gate[:, :, None, None]).mean((2, 3)))


def mixture(m: Of, x: Tensor) -> Tensor:
    weight = m.gate(x).softmax(1)
    return weight[:, :1] * m.first(x) + weight[:, 1:] * m.second(x)


def encoder(**options: object) -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)  # type: ignore


def param(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) / 2)


ARCHITECTURES: dict[str, tuple[tuple[int, ...] | None, Callable[[], nn.Module]]] = {
    "linear": (VECTORS, lambda: nn.Linear(6, CLASSES)),
    "mlp": (VECTORS, lambda: nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, CLASSES))),
    "conv": (PICTURES, lambda: cnn(conv(2, 4, 3), nn.ReLU(), conv(4, 4, 3, stride=2))),
    "grouped-conv": (PICTURES, lambda: cnn(conv(2, 4, 3, groups=2), nn.Tanh())),
    "depthwise-separable": (
        PICTURES,
        lambda: cnn(conv(2, 2, 3, groups=2), conv(2, 6, 1), nn.SiLU()),
    ),
    "dilated-conv": (PICTURES, lambda: cnn(conv(2, 3, 3, dilation=2, padding=2), nn.ELU())),
    "circular-conv": (PICTURES, lambda: cnn(conv(2, 3, 3, padding=1, padding_mode="circular"))),
    "conv-1d": (SERIES, lambda: head(nn.Conv1d(2, 3, 4), nn.Tanh())),
    "conv-3d": (
        PICTURES,
        lambda: head(
            nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 2, 2), nn.Tanh(), nn.MaxPool3d((1, 2, 2))
        ),
    ),
    "transposed-conv": (PICTURES, lambda: cnn(nn.ConvTranspose2d(2, 3, 3, stride=2), nn.Tanh())),
    "batch-norm": (PICTURES, lambda: cnn(conv(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())),
    "layer-norm": (SEQUENCES, lambda: head(nn.Linear(8, 6), nn.LayerNorm(6), nn.GELU())),
    "group-norm": (PICTURES, lambda: cnn(conv(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU())),
    "instance-norm": (
        PICTURES,
        lambda: cnn(conv(2, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.ReLU()),
    ),
    "rms-norm": (SEQUENCES, lambda: head(nn.Linear(8, 6), nn.RMSNorm(6), nn.SiLU())),
    "local-response-norm": (PICTURES, lambda: cnn(conv(2, 4, 3), nn.LocalResponseNorm(2))),
    "prelu": (PICTURES, lambda: cnn(conv(2, 4, 3), nn.PReLU(4))),
    "residual": (
        PICTURES,
        lambda: Of(
            lambda m, x: m.end(F.relu(x + m.conv(x), inplace=True)),
            conv=conv(2, 2, 3, padding=1),
            end=cnn(),
        ),
    ),
    "dense-connections": (
        PICTURES,
        lambda: Of(lambda m, x: m.end(torch.cat([x, m.conv(x)], 1)), conv=conv(2, 3, 1), end=cnn()),
    ),
    "squeeze-excitation": (
        PICTURES,
        lambda: Of(
            squeeze,
            conv=conv(2, 4, 3),
            down=nn.Linear(4, 2),
            up=nn.Linear(2, 4),
            fc=nn.Linear(4, CLASSES),
        ),
    ),
    "upsampling": (
        PICTURES,
        lambda: cnn(conv(2, 3, 3, stride=2), nn.Upsample(scale_factor=2), conv(3, 3, 3)),
    ),
    "pixel-shuffle": (PICTURES, lambda: cnn(conv(2, 4, 3), nn.PixelShuffle(2), conv(1, 2, 3))),
    "multihead-attention": (
        SEQUENCES,
        lambda: Of(
            attention,
            attention=nn.MultiheadAttention(8, 2, batch_first=True),
            fc=nn.Linear(8, CLASSES),
        ),
    ),
    "attention-by-hand": (
        SEQUENCES,
        lambda: Of(attention_by_hand, qkv=nn.Linear(8, 12), fc=nn.Linear(4, CLASSES)),
    ),
    "transformer-encoder": (SEQUENCES, lambda: head(encoder(norm_first=True))),
    "vision-transformer": (
        PICTURES,
        lambda: Of(
            class_token,
            patch=conv(2, 8, 4, stride=4),
            token=param(1, 1, 8),
            position=param(1, 5, 8),
            block=encoder(),
            fc=nn.Linear(8, CLASSES),
        ),
    ),
    "lstm": (
        SEQUENCES,
        lambda: Of(recurrent, rnn=nn.LSTM(8, 4, batch_first=True), fc=nn.Linear(4, 3)),
    ),
    "gru": (
        SEQUENCES,
        lambda: Of(
            recurrent,
            rnn=nn.GRU(8, 3, batch_first=True, bidirectional=True),
            fc=nn.Linear(6, 3),
        ),
    ),
    "embedding": (TEXTS, lambda: head(nn.Embedding(TOKENS, 4, padding_idx=0), nn.Tanh())),
    "embedding-bag": (TEXTS, lambda: Of(bag, bag=nn.EmbeddingBag(TOKENS, 4), fc=nn.Linear(4, 3))),
    "text-conv": (
        TEXTS,
        lambda: Of(
            lambda m, t: m.fc(m.conv(m.embedding(t).mT).amax(2)),
            embedding=nn.Embedding(TOKENS, 4),
            conv=nn.Conv1d(4, 5, 3),
            fc=nn.Linear(5, CLASSES),
        ),
    ),
    "tied-embedding": (TEXTS, lambda: Of(tied, embedding=nn.Embedding(TOKENS, 4))),
    "tied-modules": (TEXTS, tied_modules),
    "bilinear": (
        VECTORS,
        lambda: Of(lambda m, x: m.bilinear(x, x.tanh()), bilinear=nn.Bilinear(6, 6, CLASSES)),
    ),
    "shared-layer": (
        VECTORS,
        lambda: Of(
            lambda m, x: m.fc(torch.tanh(m.step(torch.tanh(m.step(x))))),
            step=nn.Linear(6, 6),
            fc=nn.Linear(6, CLASSES),
        ),
    ),
    "bare-parameters": (
        VECTORS,
        lambda: Of(
            lambda m, x: (x * m.scale + m.shift) @ m.weight,
            scale=param(6),
            shift=param(),
            weight=param(6, CLASSES),
        ),
    ),
    "functional-linear": (
        VECTORS,
        lambda: Of(lambda m, x: F.linear(x, m.w.exp(), m.b), w=param(CLASSES, 6), b=param(CLASSES)),
    ),
    "einsum": (
        SEQUENCES,
        lambda: Of(
            lambda m, x: torch.einsum("btd,dc,t->bc", x, m.w, m.t), w=param(8, 3), t=param(5)
        ),
    ),
    "mixture-of-experts": (
        VECTORS,
        lambda: Of(mixture, gate=nn.Linear(6, 2), first=nn.Linear(6, 3), second=nn.Linear(6, 3)),
    ),
    "gated-linear-unit": (SEQUENCES, lambda: head(nn.Linear(8, 6), nn.GLU())),
    "weight-norm": (
        VECTORS,
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.Tanh(), nn.Linear(4, 3)
        ),
    ),
}


def log_odds(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits = model(batch["x"])
    return logits[:, 0] - logits[:, 1:].logsumexp(1)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_agree_with_autograd(name: str) -> None:
    shape, build = ARCHITECTURES[name]
    torch.manual_seed(0)
    x = torch.randint(0, TOKENS, (BATCH, 6)) if shape is None else torch.randn(BATCH, *shape)
    model = build().eval()
    model(x)  # lazy layers get their shapes
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    batch = {"x": x}
    found = per_example_gradients(model, log_odds, batch, plan_gradients(model, log_odds, batch))
    parameters = dict(model.named_parameters())
    assert list(found) == list(parameters)
    rows = [
        torch.autograd.grad(log_odds(model, {"x": one[None]})[0], list(parameters.values()))
        for one in x
    ]
    for number, parameter in enumerate(found):
        wanted = torch.stack([row[number] for row in rows])
        largest = max(wanted.abs().max().item(), 1e-2)
        assert wanted.any()
        assert (found[parameter] - wanted).abs().max().item() <= MOST_DIFFERENCE * largest, (
            parameter
        )


def test_tied_modules_have_rules_of_their_own() -> None:
    """Watching functions takes longer than watching modules."""
    torch.manual_seed(0)
    batch = {"x": torch.randint(0, TOKENS, (BATCH, 6))}
    plan = plan_gradients(tied_modules(), log_odds, batch)
    assert {path: layer.weight for path, layer in plan.layers.items()} == {
        "embed": "owner.weight",
        "head": "owner.weight",
    }
