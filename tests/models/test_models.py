"""Architectures: their sizes, seeded weights, and errors that say what to change."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.models import ARCHITECTURES, build_model
from engine.models.ready import probe
from engine.store.errors import SpecError
from engine.store.trust import Code, trust

GREY = {"shape": [1, 28, 28]}
COLOUR = {"shape": [3, 32, 32]}
TEXT = {"vocabulary": ["", "?", "good", "bad", "film"]}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def encoding_of(architecture: str) -> dict[str, object]:
    return TEXT if architecture == "embedding-bag" else GREY


@pytest.mark.parametrize(
    ("architecture", "encoding", "parameters"),
    [
        ("resnet-small", GREY, 116_602),
        ("mlp", GREY, 235_146),
        ("resnet9", COLOUR, 2_274_880),
        ("embedding-bag", TEXT, 5 * 64 + 64 * 64 + 64 + 64 * 10 + 10),
    ],
)
def test_number_of_parameters(architecture: str, encoding: dict[str, object], parameters: int):
    assert count(build_model(architecture, {}, encoding, 10, 0)) == parameters


def test_resnet_small_is_the_networks_of_the_design():
    """Against the layers of DESIGN section 6, written out with plain functions."""
    model = build_model("resnet-small", {}, GREY, 10, 0)
    weights = iter([p for p in model.parameters() if p.ndim > 1])
    pictures = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))

    def block(x: torch.Tensor, stride: int = 1) -> torch.Tensor:  # BatchNorm as initialised
        return F.relu(F.conv2d(x, next(weights), stride=stride, padding=1) / (1 + 1e-5) ** 0.5)

    x = block(block(pictures, stride=2))
    x = F.max_pool2d(x, 2)
    x = x + block(block(x))
    x = F.max_pool2d(block(x), 2)
    x = x + block(block(x))
    logits = x.mean((2, 3)) @ next(weights).T + model.head.bias
    torch.testing.assert_close(model(pictures), logits)


NO_CLASSIFIERS = {"bert-small", "t5-small", "two-towers", "unet-small"}


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES.keys() - NO_CLASSIFIERS))
def test_the_head_maps_the_embedding_to_logits(architecture: str):
    model = build_model(architecture, {}, encoding_of(architecture), 3, 0)
    inputs = (
        torch.tensor([[2, 4, 0], [3, 0, 0]])
        if architecture == "embedding-bag"
        else torch.randn(2, 1, 28, 28)
    )
    embedded = model.embed(inputs)
    assert embedded.ndim == 2
    torch.testing.assert_close(model.head(embedded), model(inputs))
    assert model(inputs).shape == (2, 3)


def test_bert_small_gives_what_its_head_gets():
    start = {"shape": [6], "dtype": "int64", "start": [2, 3], "rest": 0}
    mask = {"shape": [6], "dtype": "int64", "start": [1, 1], "rest": 0}
    inputs = {"input_ids": start, "attention_mask": mask}
    tokens = {"max_tokens": 6, "token_ids": 100, "padding": 0, "inputs": inputs}
    model = build_model("bert-small", {}, tokens, 3, 0)
    assert count(model) == 3_259_651 - (122 - 100 + 8 - 6) * 256
    batch, _ = probe(tokens)
    embedded, answer = model.embed_and_answer(**batch)
    assert embedded.shape == (2, 256)
    torch.testing.assert_close(model.classifier(embedded), answer.logits)


@pytest.mark.parametrize("architecture", ["resnet-small", "resnet9", "mlp"])
@pytest.mark.parametrize("shape", [[1, 28, 28], [3, 32, 32], [3, 64, 64], [3, 40, 24]])
def test_pictures_of_many_shapes(architecture: str, shape: list[int]):
    model = build_model(architecture, {}, {"shape": shape}, 4, 0)
    assert model(torch.zeros(3, *shape)).shape == (3, 4)


def test_width_and_widths():
    narrow = build_model("resnet-small", {"width": 4}, GREY, 10, 0)
    assert count(narrow) < 10_000
    linear = build_model("mlp", {"widths": []}, GREY, 10, 0)
    assert count(linear) == 784 * 10 + 10
    assert build_model("resnet9", {"widths": [8, 8, 16]}, COLOUR, 2, 0).head.weight.shape == (2, 8)


@pytest.mark.parametrize(
    ("architecture", "pools"), [("mlp", False), ("resnet-small", True), ("resnet9", True)]
)
def test_smooth_options_keep_the_weights_and_smooth_the_model(architecture: str, pools: bool):
    """Weights of a recipe fit its smooth variant, whose functions have second derivatives."""
    options = {"activation": "gelu", **({"pooling": "average"} if pools else {})}
    plain, smooth = (build_model(architecture, o, COLOUR, 10, seed=0) for o in ({}, options))
    assert plain.state_dict().keys() == smooth.state_dict().keys()
    for (name, one), other in zip(
        plain.state_dict().items(), smooth.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    kinds = {type(module) for module in smooth.modules()}
    assert nn.GELU in kinds
    assert not kinds & {nn.ReLU, nn.MaxPool2d}
    pictures = torch.rand(2, 3, 32, 32)
    half = build_model(
        architecture, {"logit_scale": 0.1 if architecture == "resnet9" else 0.5}, COLOUR, 10, seed=0
    )
    half.load_state_dict(plain.state_dict())
    assert torch.allclose(half(pictures), plain(pictures) / 2, atol=1e-6)


def test_padding_does_not_count():
    model = build_model("embedding-bag", {}, TEXT, 2, 0)
    short = model(torch.tensor([[2, 4]]))
    torch.testing.assert_close(short, model(torch.tensor([[2, 4, 0, 0, 0]])))
    assert model(torch.zeros(1, 3, dtype=torch.int64)).isfinite().all()
    mean = model.trunk[0].embedding.weight[[2, 4]].mean(0)
    torch.testing.assert_close(model.trunk[0](torch.tensor([[2, 0, 4]]))[0], mean)


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = build_model("mlp", {}, GREY, 10, 7).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = (build_model("mlp", {}, GREY, 10, seed).state_dict() for seed in (7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_models_come_in_eval_mode():
    assert not any(module.training for module in build_model("resnet9", {}, GREY, 2, 0).modules())


@pytest.mark.parametrize(
    ("architecture", "options", "encoding", "words"),
    [
        ("resnet-smal", {}, GREY, ["'resnet-smal'", "resnet-small", "timm:NAME"]),
        ("mlp", {"width": 3}, GREY, ["'width'", "it takes widths, activation, logit_scale."]),
        ("mlp", {"n_classes": 3}, GREY, ["'n_classes'"]),
        ("mlp", {"widths": [3, 0]}, GREY, ["widths.1 = 0", "greater than or equal to 1"]),
        ("mlp", {"widths": "wide"}, GREY, ["widths = 'wide'", "list"]),
        ("resnet9", {"widths": [3]}, GREY, ["widths.1", "field required"]),
        ("resnet-small", {"width": -1}, GREY, ["width = -1"]),
        ("resnet-small", {}, {"shape": [1, 6, 28]}, ["[1, 6, 28]", "too small"]),
        ("resnet9", {}, {"shape": [3, 10, 10]}, ["[3, 10, 10]", "too small"]),
        ("resnet-small", {}, TEXT, ["'embedding-bag'"]),
        ("embedding-bag", {}, GREY, ["'resnet-small'"]),
        ("python:", {}, GREY, ["python:module:function"]),
        ("python:no_such_module:f", {}, GREY, ["no_such_module"]),
        ("python:mine:no_such_function", {}, GREY, ["no_such_function"]),
        ("python:mine:number", {}, GREY, ["not a function"]),
        ("python:mine:bad", {}, GREY, ["'python:mine:bad'", "ValueError: on purpose"]),
        ("python:mine:five", {}, GREY, ["not a torch.nn.Module"]),
        ("python:mine:wrong_classes", {}, GREY, ["[2, 11]", "[2, 10]"]),
        ("python:mine:mine", {"depth": 1}, GREY, ["'depth'", "it takes bias."]),
    ],
)
def test_errors_name_the_mistake(
    architecture: str,
    options: dict[str, object],
    encoding: dict[str, object],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    monkeypatch.setitem(sys.modules, "mine", a_users_module())
    trust(tmp_path, [Code.of(architecture, options)])
    with pytest.raises(SpecError) as caught:
        build_model(architecture, options, encoding, 10, 0, tmp_path)
    for word in words:
        assert word in str(caught.value)


def a_users_module() -> types.ModuleType:
    module = types.ModuleType("mine")

    def mine(encoding: dict[str, list[int]], n_classes: int, bias: bool = True) -> nn.Module:
        size = torch.Size(encoding["shape"]).numel()
        return nn.Sequential(nn.Flatten(), nn.Linear(size, n_classes, bias=bias))

    def bad(encoding: object, n_classes: int) -> nn.Module:
        raise ValueError("on purpose")

    module.number = 3
    module.mine, module.bad, module.five = mine, bad, lambda encoding, n_classes: 5
    module.wrong_classes = lambda encoding, n_classes: mine(encoding, n_classes + 1)
    return module


def test_an_import_string(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "mine", a_users_module())
    trust(tmp_path, [Code.of("python:mine:mine", {"bias": False})])
    model = build_model("python:mine:mine", {"bias": False}, GREY, 10, 0, tmp_path)
    assert count(model) == 7840


def test_timm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SpecError, match="pip install timm"):
        build_model("timm:resnet18", {}, GREY, 10, 0)


def test_timm_models_get_random_weights(monkeypatch: pytest.MonkeyPatch):
    given: dict[str, object] = {}

    class Tiny(nn.Module):
        def __init__(self, channels: int, n_classes: int) -> None:
            super().__init__()
            self.fc = nn.Linear(channels, n_classes)

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return x

        def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
            pooled = x.mean((2, 3))
            return pooled if pre_logits else self.fc(pooled)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.forward_head(self.forward_features(x))

    def create_model(name: str, **options: object) -> nn.Module:
        given.update(options, name=name)
        return Tiny(options["in_chans"], options["num_classes"])

    timm = types.ModuleType("timm")
    timm.create_model, timm.list_models = create_model, lambda: ["tiny"]
    monkeypatch.setitem(sys.modules, "timm", timm)
    model = build_model("timm:tiny", {"drop_rate": 0.1}, COLOUR, 5, 0)
    assert given == {
        "name": "tiny",
        "pretrained": False,
        "num_classes": 5,
        "in_chans": 3,
        "drop_rate": 0.1,
    }
    assert model.embed(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert set(model.state_dict()) == {"fc.weight", "fc.bias"}
    with pytest.raises(SpecError, match="'no_such'"):
        build_model("timm:no_such", {}, COLOUR, 5, 0)
    with pytest.raises(SpecError, match="'pretrained'"):
        build_model("timm:tiny", {"pretrained": True}, COLOUR, 5, 0)


def test_the_registry_does_not_import_torch():
    script = "import sys, engine.models; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
