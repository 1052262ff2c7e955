"""Models as people write them: run as they are, or refused in one line before any training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.attribution.trak.gradients import per_example_gradients
from engine.attribution.trak.make_plan import plan_gradients
from engine.models.answers import logits_of
from engine.models.ready import make_ready, notes_of
from engine.store.errors import DataloupeError
from engine.tasks.image_classification import TASK
from engine.tasks.margin import margin
from engine.training.checking import check_model
from engine.training.outputs import evaluate_batch, in_fast_layout, to_device

SHAPE, CLASSES, BATCH = [1, 6, 6], 3, 6


@dataclass
class Output:
    """Like the answers of transformers."""

    loss: Tensor | None
    logits: Tensor


class Net(nn.Module):
    """A small convolutional network whose forward pass a case replaces."""

    def __init__(self, forward: Callable[[Net, Tensor], Any] | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, CLASSES)
        self.norm.running_mean.normal_(generator=torch.Generator().manual_seed(1))
        self._forward = forward or Net.logits

    def features(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).tanh().mean((2, 3))

    def logits(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))

    def forward(self, x: Tensor) -> Any:
        return self._forward(self, x)


def changed(change: Callable[[Net], Any], forward: Any = None) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = Net(forward)
        change(model)
        return model

    return build


def half_backbone(dtype: torch.dtype) -> Callable[[], nn.Module]:
    """Layers in half precision whose inputs the code converts."""

    def forward(model: Net, x: Tensor) -> Tensor:
        return model.fc(model.norm(model.conv(x.to(dtype)).float()).tanh().mean((2, 3)))

    return changed(lambda model: model.conv.to(dtype), forward)


def autocast(model: Net, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model.logits(x)


def no_grad_backbone(model: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        features = model.features(x)
    return model.fc(features)


def aliased(model: Net, x: Tensor) -> Tensor:
    """The same layer twice, an operation in place, and a skip connection."""
    x = model.conv(F.pad(x, [1] * 4))
    y = F.relu_(model.norm(x))
    y = y + model.norm(y)
    return model.fc(y.mean((2, 3)))


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(2, 3), nn.Flatten(), nn.ReLU(), nn.LazyLinear(CLASSES))


def widen(model: Net) -> None:
    model.fc = nn.Linear(4 * 4 * 4, CLASSES)


def viewing(model: Net, x: Tensor) -> Tensor:
    return model.fc(model.norm(model.conv(x)).tanh().view(x.size(0), -1))


def viewing_one_channel(model: Net, x: Tensor) -> Tensor:
    """A weight with one input channel is contiguous in both layouts; its strides decide."""
    return model.fc(model.conv(x).view(x.size(0), -1))


def add_unused(model: Net) -> None:
    model.aux = nn.Linear(4, 7)
    model.register_buffer("mean", torch.zeros(3))
    model.count = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)


def named_embed(model: Net) -> None:
    """A layer, not our method."""
    model.embed = nn.Embedding(5, 2)


RUN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "plain": (Net, ""),
    "tuple": (lambda: Net(lambda m, x: (m.logits(x), m.features(x))), ""),
    "list": (lambda: Net(lambda m, x: [m.logits(x)]), ""),
    "dict-logits": (lambda: Net(lambda m, x: {"loss": None, "logits": m.logits(x)}), ""),
    "dict-out": (lambda: Net(lambda m, x: {"aux": m.features(x), "out": m.logits(x)}), ""),
    "dict-of-one": (lambda: Net(lambda m, x: {"y": m.logits(x)}), ""),
    "model-output": (lambda: Net(lambda m, x: Output(None, m.logits(x))), ""),
    "log-softmax": (lambda: Net(lambda m, x: F.log_softmax(m.logits(x), 1)), ""),
    "bfloat16": (lambda: Net().to(torch.bfloat16), "bfloat16 layers are computed in float32"),
    "float16": (lambda: Net().to(torch.float16), "float16 layers are computed in float32"),
    "float64": (lambda: Net().double(), "float64 layers are computed in float32"),
    "bfloat16-backbone": (half_backbone(torch.bfloat16), "computed in that precision"),
    "float16-backbone": (half_backbone(torch.float16), "computed in that precision"),
    "float64-backbone": (half_backbone(torch.float64), "computed in that precision"),
    "autocast": (lambda: Net(autocast), ""),
    "no-grad-backbone": (
        lambda: Net(no_grad_backbone),
        "No gradient reaches 4 of 6 parameters (conv.weight, conv.bias, norm.weight, …)",
    ),
    "detached-backbone": (
        lambda: Net(lambda m, x: m.fc(m.features(x).detach())),
        "No gradient reaches 4 of 6 parameters",
    ),
    "frozen-backbone": (
        changed(lambda m: m.conv.requires_grad_(False)),
        "2 of 6 parameters are frozen (conv.weight, conv.bias)",
    ),
    "unused-and-integer-parameters": (changed(add_unused), "No gradient reaches 2 of 9"),
    "shared-and-in-place": (lambda: Net(aliased), ""),
    "lazy": (lazy, ""),
    "view-after-convolution": (changed(widen, viewing), ""),
    "view-after-one-channel": (changed(widen, viewing_one_channel), "No gradient reaches 2 of 6"),
    "convolution-3d": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 2, (1, 3, 3)), nn.Flatten(), nn.LazyLinear(3)
        ),
        "",
    ),
    "weight-norm": (changed(lambda m: nn.utils.parametrizations.weight_norm(m.fc)), ""),
    "old-weight-norm": (changed(lambda m: torch.nn.utils.weight_norm(m.fc)), ""),
    "spectral-norm": (changed(lambda m: nn.utils.parametrizations.spectral_norm(m.fc)), ""),
    "dropout-with-training": (
        lambda: Net(lambda m, x: m.fc(F.dropout(m.features(x), training=m.training))),
        "",
    ),
    "batch-norm-frozen-in-training": (lambda: FrozenNorm(), ""),
    "layer-called-embed": (changed(named_embed), "No gradient reaches 1 of 7"),
    "scripted": (lambda: torch.jit.script(Plain()), ""),
    "compiled": (lambda: Compiled(Net()), ""),
    "data-parallel": (lambda: nn.DataParallel(Net()), ""),
    "head-of-zeros": (changed(lambda m: nn.init.zeros_(m.fc.weight)), ""),
}


class Compiled(nn.Module):
    """Like what torch.compile returns, whose import takes seconds; its forward compiles."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model


class FrozenNorm(Net):
    def train(self, mode: bool = True) -> FrozenNorm:
        super().train(mode)
        self.norm.eval()
        return self


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.conv(x)).mean((2, 3)))


def examples() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    pictures = torch.randn(BATCH, *SHAPE, generator=generator)
    return {"input": in_fast_layout(pictures), "label": torch.arange(BATCH) % CLASSES}


def of_autograd(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Gradients of each example's margin, one by one, of the model as its owner wrote it."""
    precision = {p.dtype for p in model.parameters() if p.is_floating_point()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for picture, label in zip(batch["input"].contiguous(), batch["label"], strict=True):
        one = picture[None].to(precision.pop() if len(precision) == 1 else torch.float32)
        precision = {one.dtype} if one.dtype != torch.float32 else precision
        value = margin(logits_of(model(one)), label[None])[0]
        found = torch.autograd.grad(value, parameters, materialize_grads=True)
        rows.append(torch.cat([part.flatten().float() for part in found]))
    return torch.stack(rows)


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().eval()


@pytest.mark.input_case
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", RUN)
def test_models_run_and_their_gradients_are_those_of_autograd(case: str) -> None:
    build, note = RUN[case]
    written, batch = seeded(build), examples()
    written = getattr(written, "_orig_mod", written)
    if any(isinstance(p, nn.UninitializedParameter) for p in written.parameters()):
        written(torch.zeros(2, *SHAPE))
    model = make_ready("python:mine:net", seeded(build), {"shape": SHAPE}, CLASSES)
    model = to_device(model, "cpu")
    state = torch.get_rng_state()
    notes = " ".join(check_model(TASK, model, batch, trained=True))
    assert note in notes if note else not notes
    assert torch.equal(torch.get_rng_state(), state)
    coarse = any(word in case for word in ("float16", "autocast"))
    plan = plan_gradients(model, TASK.model_output, batch)
    found = per_example_gradients(model, TASK.model_output, batch, plan)
    joined = torch.cat([part.reshape(BATCH, -1) for part in found.values()], 1)
    wanted = of_autograd(written, batch)
    assert (joined - wanted).norm() <= (2e-2 if coarse else 1e-5) * wanted.norm()
    assert wanted.abs().max() > 0
    assert ("embeddings" in evaluate_batch(TASK, model, batch)) is False


def dropout(model: Net, x: Tensor) -> Tensor:
    return model.fc(F.dropout(model.features(x)))


def counting(model: Net, x: Tensor) -> Tensor:
    model.steps += 1
    return model.logits(x) * model.steps


def centered(model: Net, x: Tensor) -> Tensor:
    features = model.features(x)
    return model.fc(features - features.mean(0))


def batch_statistics(model: Net, x: Tensor) -> Tensor:
    return model.fc(F.batch_norm(model.conv(x), None, None, training=True).mean((2, 3)))


def whole_no_grad(model: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.logits(x)


def complex_parameter() -> nn.Module:
    model = Net(lambda m, x: m.logits(x) * m.phase.abs())
    model.phase = nn.Parameter(torch.ones(1, dtype=torch.complex64))
    return model


def quantized() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(
        nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES)), {nn.Linear}
    )


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "functional-dropout": (lambda: Net(dropout), "is random in eval mode"),
    "dropout-before-a-head-of-zeros": (
        changed(lambda m: nn.init.zeros_(m.fc.weight), dropout),
        "training=self.training",
    ),
    "noise": (
        lambda: Net(lambda m, x: m.logits(x + torch.randn_like(x))),
        "random in eval mode",
    ),
    "alpha-dropout": (
        lambda: Net(lambda m, x: m.fc(F.alpha_dropout(m.features(x), 0.3, training=True))),
        "random in eval mode",
    ),
    "counting-buffer": (
        changed(lambda m: m.register_buffer("steps", torch.zeros(())), counting),
        "changes its own 'steps' whenever it predicts",
    ),
    "centered-over-the-batch": (lambda: Net(centered), "depend on the other examples"),
    "centered-before-a-head-of-zeros": (
        changed(lambda m: nn.init.zeros_(m.fc.weight), centered),
        "the gradient of an example depend on the other examples",
    ),
    "functional-batch-statistics": (lambda: Net(batch_statistics), "depend on the other examples"),
    "batch-norm-without-statistics": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3),
            nn.BatchNorm2d(2, track_running_stats=False),
            nn.Flatten(),
            nn.LazyLinear(3),
        ),
        "BatchNorm layer '1' keeps no running statistics",
    ),
    "whole-model-under-no-grad": (lambda: Net(whole_no_grad), "no gradient reaches any parameter"),
    "detached-output": (
        lambda: Net(lambda m, x: m.logits(x).detach()),
        "no gradient reaches any parameter",
    ),
    "all-frozen": (changed(lambda m: m.requires_grad_(False)), "all parameters of the model are"),
    "no-parameters": (
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d((1, 3)), nn.Flatten()),
        "the model has no parameters",
    ),
    "buffers-only": (
        lambda: Buffers(),
        "the model has no parameters",
    ),
    "complex-parameter": (complex_parameter, "'phase' holds complex numbers"),
    "softmax": (lambda: Net(lambda m, x: m.logits(x).softmax(1)), "returns probabilities"),
    "sigmoid": (lambda: Net(lambda m, x: m.logits(x).sigmoid()), "ends in a sigmoid"),
    "loss": (lambda: Net(lambda m, x: m.logits(x).mean()), "seems to return a loss"),
    "features-first": (
        lambda: Net(lambda m, x: (m.features(x), m.logits(x))),
        "gives a tuple of shape [2, 4], shape [2, 3] for two examples of 3 classes",
    ),
    "unnamed-tensors": (
        lambda: Net(lambda m, x: {"a": m.logits(x), "b": m.features(x)}),
        "in which the logits are not named",
    ),
    "nothing": (lambda: Net(lambda m, x: None), "returns None"),
    "argmax": (lambda: Net(lambda m, x: m.logits(x).argmax(1)), "must give logits"),
    "one-output": (lambda: Net(lambda m, x: m.logits(x)[:, :1]), "gives [2, 1] for two examples"),
    "other-number-of-classes": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 10)),
        "gives [2, 10] for two examples of 3 classes; it must give logits of shape [2, 3]",
    ),
    "maps-instead-of-rows": (
        lambda: nn.Conv2d(1, 3, 3),
        "gives [2, 3, 4, 4] for two examples of 3 classes",
    ),
    "color-pictures-expected": (
        lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.LazyLinear(3)),
        "`color` under [task] change them",
    ),
    "larger-pictures-expected": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 3)),
        "`image_size`",
    ),
    "labels-wanted": (lambda: Labeled(), "missing 1 required positional argument: 'labels'"),
    "quantized": (quantized, "quantization"),
    "weights-with-nan": (
        changed(lambda m: nn.init.constant_(m.fc.bias, float("nan"))),
        "outputs are not finite",
    ),
    "in-place-on-a-needed-value": (
        lambda: Net(lambda m, x: m.fc(m.features(x).exp().sqrt().mul_(2))),
        "compute gradients",
    ),
    "train-mode-fails": (
        lambda: Net(lambda m, x: m.logits(x) if not m.training else m.logits(x)[:, :1]),
        "be trained",
    ),
}


def ready_and_checked(model: nn.Module) -> None:
    ready = make_ready("python:mine:net", model, {"shape": SHAPE}, CLASSES)
    check_model(TASK, ready, examples(), trained=True)


class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(36, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


class Labeled(Net):
    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(x), labels)


@pytest.mark.input_case
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", REFUSED)
def test_models_that_cannot_be_attributed_are_refused_before_training(case: str) -> None:
    build, text = REFUSED[case]
    torch.manual_seed(0)
    with pytest.raises(DataloupeError) as caught:
        ready_and_checked(build())
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_check_changes_nothing() -> None:
    model = make_ready("net", Net(), {"shape": SHAPE}, CLASSES)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_model(TASK, model, examples(), trained=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert notes_of(model) == []
