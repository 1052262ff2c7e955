"""Per-example gradients equal those of torch.func for every kind of layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.attribution.trak.gradients import per_example_gradients
from engine.attribution.trak.make_plan import plan_gradients
from engine.store.errors import CheckpointError
from tests.builders.exact_gradients import dense_gradients

BATCH = 3


def output(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch["x"]).flatten(1).pow(2).mul(0.5).add(0.1).sin().sum(1)


def agree(model: nn.Module, batch: dict[str, Tensor], f=output, untapped: int | None = None):
    model.eval()
    plan = plan_gradients(model, f, batch)
    found = per_example_gradients(model, f, batch, plan)
    joined = torch.cat([gradient.reshape(BATCH, -1) for gradient in found.values()], 1)
    wanted = dense_gradients(model, f, batch)
    assert list(found) == [name for name, p in model.named_parameters() if p.requires_grad]
    torch.testing.assert_close(joined, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
    assert wanted.abs().max() > 0
    if untapped is not None:
        assert len(plan.untapped) == untapped
    return plan


def images(channels: int, *sizes: int) -> dict[str, Tensor]:
    return {"x": torch.randn(BATCH, channels, *sizes)}


def spread(model: nn.Module) -> nn.Module:
    """Random norm statistics, weights and biases, so that no gradient vanishes by symmetry."""
    for module in model.modules():
        for name in ("running_mean", "weight", "bias"):
            if isinstance(value := getattr(module, name, None), Tensor) and value.ndim == 1:
                value.data.normal_()
        if isinstance(value := getattr(module, "running_var", None), Tensor):
            value.uniform_(0.5, 2)
    return model


@settings(max_examples=40, deadline=None)
@given(
    dims=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 4]),
    per_group=st.integers(1, 2),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.sampled_from([0, 1, 2, "same", "valid"]),
    mode=st.sampled_from(["zeros", "reflect", "circular"]),
    bias=st.booleans(),
)
def test_convolutions(dims, groups, per_group, kernel, stride, dilation, padding, mode, bias):
    torch.manual_seed(0)
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    options = {"stride": 1 if padding == "same" else stride, "dilation": dilation}
    layer = kind(
        groups, groups * per_group, kernel, padding=padding, groups=groups, padding_mode=mode,
        bias=bias, **options,
    )  # fmt: skip
    agree(layer, images(groups, *[7, 6, 5][:dims]), untapped=0)


@settings(max_examples=10, deadline=None)
@given(lead=st.lists(st.integers(1, 3), max_size=2), out=st.integers(1, 4), bias=st.booleans())
def test_linear_over_any_leading_dimensions(lead, out, bias):
    torch.manual_seed(0)
    agree(nn.Linear(5, out, bias=bias), {"x": torch.randn(BATCH, *lead, 5)}, untapped=0)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.BatchNorm1d(4), (4,)),
        (nn.BatchNorm1d(4), (4, 5)),
        (nn.BatchNorm2d(4), (4, 3, 2)),
        (nn.BatchNorm3d(4), (4, 3, 2, 2)),
        (nn.GroupNorm(2, 4), (4, 3, 2)),
        (nn.LayerNorm(4), (5, 4)),
        (nn.LayerNorm((5, 4)), (5, 4)),
        (nn.RMSNorm(4), (5, 4)),
    ],
)
def test_norms(model, shape):
    torch.manual_seed(0)
    agree(spread(model), {"x": torch.randn(BATCH, *shape)}, untapped=0)


class SamePadding(nn.Conv2d):
    """As timm's Conv2dSame: pads first, unevenly."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride,
                        groups=self.groups)  # fmt: skip


class NormAndActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: the result is not that of the norm."""

    def forward(self, x):
        normal = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                              False, 0.1, self.eps)  # fmt: skip
        return F.relu6(normal, inplace=True)


class GroupsAndActivation(nn.GroupNorm):
    def forward(self, x):
        return F.silu(F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps))


@pytest.mark.parametrize(
    "model",
    [
        SamePadding(4, 6, 2, stride=2, bias=False),
        SamePadding(4, 4, 2, groups=4),
        SamePadding(4, 8, 2, groups=2),
        NormAndActivation(4, eps=1e-3),
        GroupsAndActivation(2, 4, eps=1e-3),
    ],
)
def test_subclasses_that_call_a_function(model):
    torch.manual_seed(0)
    agree(spread(model), {"x": torch.randn(BATCH, 4, 5, 6)}, untapped=0)


@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_embedding(padding, shape):
    torch.manual_seed(0)
    ids = torch.randint(0, 5, (BATCH, *shape))
    ids.flatten()[0] = 2
    embedding = nn.Embedding(5, 3, padding_idx=padding)
    embedding.weight.data.normal_()  # a padding row that is not zero has no gradient either
    agree(embedding, {"x": ids}, untapped=0)


class Shared(nn.Module):
    """One convolution and one linear layer used several times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(torch.tanh(self.conv(x))).mean((2, 3))
        return self.linear(torch.tanh(self.linear(x)))


class Tied(nn.Module):
    """Input and output embeddings are one parameter, once as a layer and once by hand."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.by_hand = by_hand

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embedding(ids).cumsum(1).tanh()
        return F.linear(hidden, self.embedding.weight) if self.by_hand else self.head(hidden)


class Bare(nn.Module):
    """Parameters held by a module that has no rule, and positions looked up once for a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))
        self.shift = nn.Parameter(torch.randn(()))
        self.positions = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale + self.shift + self.positions(torch.arange(x.shape[1]))
        return self.linear(x)


class SequenceFirst(nn.Module):
    """A linear layer that is given [positions, batch, features]."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.transpose(0, 1)).tanh().transpose(0, 1)


class Residual(nn.Module):
    """In-place activations and additions behind tapped layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.b = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.b(x)
        y += x
        return y.relu_().mean((2, 3))


def test_shared_layers():
    torch.manual_seed(0)
    plan = agree(Shared(), images(2, 4, 4), untapped=0)
    assert plan.layers["linear"].positions == 2


@pytest.mark.parametrize("by_hand", [False, True])
def test_tied_parameters(by_hand):
    torch.manual_seed(0)
    agree(Tied(by_hand), {"x": torch.randint(0, 7, (BATCH, 4))}, untapped=0)


def test_bare_parameters_and_shared_positions():
    torch.manual_seed(0)
    agree(Bare(), {"x": torch.randn(BATCH, 5, 4)}, untapped=0)


def test_examples_in_another_dimension():
    torch.manual_seed(0)
    for positions in (BATCH, 5):  # as many positions as examples look like a batch
        agree(SequenceFirst(), {"x": torch.randn(BATCH, positions, 4)}, untapped=0)


def test_in_place_activations():
    torch.manual_seed(0)
    agree(spread(Residual()), images(2, 5, 5), untapped=0)


class Attention(nn.Module):
    """nn.MultiheadAttention as people call it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        first = how in ("batch first", "padding", "causal", "no weights")
        odd = {"key sizes": {"kdim": 3, "vdim": 3}, "extra keys": {"add_bias_kv": True}}
        self.attention = nn.MultiheadAttention(4, 2, batch_first=first, **odd.get(how, {}))
        self.other = nn.Linear(4, 3 if how == "key sizes" else 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "batch second":
            x = x.transpose(0, 1)
            return self.attention(x, x, x)[0].transpose(0, 1)
        if self.how in ("cross", "key sizes", "extra keys"):
            x, memory = x.transpose(0, 1), self.other(x[:, :3]).tanh().transpose(0, 1)
            return self.attention(x, memory, memory)[0].transpose(0, 1)
        length = x.shape[1]
        options: dict[str, object] = {"need_weights": self.how != "no weights"}
        if self.how == "padding":
            options["key_padding_mask"] = (torch.arange(length) > 2).expand(len(x), -1)
        if self.how == "causal":
            options["attn_mask"] = torch.ones(length, length, dtype=torch.bool).triu(1)
            options["is_causal"] = True
        return self.attention(x, x, x, **options)[0]


@pytest.mark.parametrize(
    ("how", "untapped"),
    [
        ("batch first", 0),
        ("batch second", 0),
        ("no weights", 0),
        ("padding", 0),
        ("causal", 0),
        ("cross", 0),
        ("key sizes", None),
        ("extra keys", None),
    ],
)
def test_multihead_attention(how, untapped):
    torch.manual_seed(0)
    for length in (5, BATCH):
        agree(Attention(how), {"x": torch.randn(BATCH, length, 4)}, untapped=untapped)


class OwnNorm(nn.LayerNorm):
    """A norm over channels that come first, as ConvNeXt has it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Offset(nn.Embedding):
    """Positions that start at 2, as BART has them."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.arange(x.shape[1]) + 2) + x


@pytest.mark.parametrize(
    ("model", "shape"), [(OwnNorm(4), (4, 3, 2)), (Offset(9, 4), (5, 4)), (Offset(9, 4), (3, 4))]
)
def test_subclasses_of_layers(model, shape):
    torch.manual_seed(0)
    agree(spread(model), {"x": torch.randn(BATCH, *shape)}, untapped=0)


class Scaled(nn.Module):
    """A parameter that is multiplied with an input of any number of dimensions."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.scale).cumsum(1)


@pytest.mark.parametrize(
    ("shape", "input_shape"),
    [
        ((), (5, 4)),
        ((4,), (4,)),
        ((4,), (5, 4)),
        ((4,), (2, 5, 4)),
        ((5, 4), (5, 4)),
        ((1, 5, 4), (5, 4)),
        ((1, 1, 4), (5, 4)),
        ((4, 1, 1), (4, 3, 2)),
        ((BATCH, 4), (BATCH, 4)),
        ((1, BATCH), (4, BATCH)),
    ],
)
def test_own_parameters(shape, input_shape):
    torch.manual_seed(0)
    agree(Scaled(*shape), {"x": torch.randn(BATCH, *input_shape)}, untapped=0)


def test_examples_folded_into_windows():
    torch.manual_seed(0)

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.norm = nn.LayerNorm(3)

        def forward(self, x: Tensor) -> Tensor:
            windows = self.norm(self.linear(x.unflatten(1, (3, 2)).flatten(0, 1)))
            return windows.unflatten(0, (-1, 3))

    agree(spread(Windows()), {"x": torch.randn(BATCH, 6, 4)}, untapped=0)


def test_layers_without_a_rule():
    torch.manual_seed(0)
    agree(nn.ConvTranspose2d(2, 3, 2), images(2, 3, 3), untapped=2)
    encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    agree(encoder, {"x": torch.randn(BATCH, 5, 4)}, untapped=0)


def test_models_that_vmap_cannot_run():
    torch.manual_seed(0)

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            rows = [self.scale[int(row.sum() > 0)] * row for row in x]
            return torch.stack(rows)

    model = Branching()
    x = torch.randn(BATCH, 3)
    plan = plan_gradients(model, output, {"x": x})
    assert plan.looped
    found = per_example_gradients(model, output, {"x": x}, plan)["scale"]
    for i in range(BATCH):
        value = output(model, {"x": x[i : i + 1]})[0]
        torch.testing.assert_close(found[i], torch.autograd.grad(value, model.scale)[0])


def test_frozen_parameters_are_left_out_and_flags_restored():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    plan = agree(model, {"x": torch.randn(BATCH, 4)}, untapped=0)
    assert set(plan.shapes) == {"1.weight", "1.bias"}
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]


def test_unused_parameters_have_zero_gradients():
    model = nn.ModuleDict({"used": nn.Linear(4, 2), "unused": nn.Linear(4, 2)})
    batch = {"x": torch.randn(BATCH, 4)}
    f = lambda model, batch: model["used"](batch["x"]).sum(1)  # noqa: E731
    plan = plan_gradients(model, f, batch)
    found = per_example_gradients(model, f, batch, plan)
    assert not found["unused.weight"].any()
    assert found["used.weight"].any()


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (nn.BatchNorm2d(2), "is in train mode"),
        (nn.BatchNorm2d(2, track_running_stats=False).eval(), "keeps no running statistics"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.Dropout(0.5)), "Dropout"),
    ],
)
def test_coupled_and_random_models_are_refused(model, text):
    with pytest.raises(CheckpointError, match=text):
        plan_gradients(model, output, images(2, 3, 3))


def test_coupling_that_no_layer_shows_is_refused():
    def contrastive(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(batch["x"]).sum(1) - model(batch["x"]).mean()

    with pytest.raises(CheckpointError, match="influence each other"):
        plan_gradients(nn.Linear(4, 2), contrastive, {"x": torch.randn(BATCH, 4)})


def test_non_finite_outputs_are_refused():
    model = nn.Linear(4, 2)
    model.weight.data[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="not finite"):
        plan_gradients(model, output, {"x": torch.randn(BATCH, 4)})


def test_a_model_without_parameters_is_refused():
    with pytest.raises(CheckpointError, match="no parameter"):
        plan_gradients(nn.ReLU(), output, {"x": torch.randn(BATCH, 4)})
