"""Replay against finite differences and autograd through whole trainings, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from engine.attribution.replay.query import adjoints_of
from engine.attribution.replay.reverse import walk_back
from engine.attribution.replay.states import Recording, segments
from engine.models import build_model
from engine.models.parts import freeze
from engine.store.errors import DataloupeError, MissingCapability
from engine.store.spec import AlgorithmSpec
from engine.tasks import load_task
from engine.tasks.margin import margin
from engine.training.optimizer import learning_rate
from engine.training.stepping import Training
from engine.training.trainer import train
from tests.attribution.replay import trainings
from tests.attribution.replay.trainings import (
    ENCODING,
    N_TEST,
    N_TRAIN,
    TEST,
    TRAIN,
    differences,
    error,
    made,
    mlp,
    recipe,
    replayed,
)

Make = Callable[[], nn.Module]
PRECISION = 1e-6


def convolutions() -> nn.Module:
    """BatchNorm on the data, after convolutions, of one value a channel, and as a plain mean."""
    return nn.Sequential(
        nn.BatchNorm2d(1),
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.GELU(),
        nn.Conv2d(4, 4, 3, bias=False),
        nn.BatchNorm2d(4, momentum=None),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def groups() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.Flatten(), nn.Linear(64, 3)
    )


def head_only() -> nn.Module:
    model = mlp(nn.BatchNorm1d(7), nn.Dropout(0.3))
    freeze(model, "head")
    return model


class Twice(nn.Module):
    """One BatchNorm layer that is called twice in a pass, and weights that are tied."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(36, 36)
        self.norm = nn.BatchNorm1d(36)
        self.head = nn.Linear(36, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(self.first(inputs.flatten(1))).tanh()
        found: Tensor = self.head(self.norm(functional.linear(hidden, self.first.weight)).tanh())
        return found


class Unused(nn.Module):
    """A model with a parameter that no gradient reaches: the optimizer leaves it as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.ones(3))
        self.inside = mlp()

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.inside(inputs)
        return found


ADAMW = {"optimizer": "adamw", "learning_rate": 0.01}
CASES: dict[str, tuple[Make, dict[str, object]]] = {
    "sgd": (mlp, {"momentum": 0.0}),
    "momentum": (mlp, {"nesterov": False, "schedule": "cosine"}),
    "nesterov": (mlp, {}),
    "adamw": (mlp, ADAMW),
    "decay of weights only": (mlp, {**ADAMW, "decay": "weights", "schedule": "constant"}),
    "clipping": (mlp, {"gradient_clipping": 0.5}),
    "clipping and adamw": (mlp, {**ADAMW, "gradient_clipping": 0.3}),
    "label smoothing": (mlp, {"label_smoothing": 0.2}),
    "augmentation": (mlp, {"augmentations": ["flip", "crop", "cutout"]}),
    "dropout": (lambda: mlp(nn.Dropout(0.3)), {}),
    "dropout and augmentation": (lambda: mlp(nn.Dropout(0.3)), {"augmentations": ["flip"]}),
    "layer norm": (lambda: mlp(nn.LayerNorm(7)), {}),
    "group norm": (groups, {}),
    "batch norm": (lambda: mlp(nn.BatchNorm1d(7)), {}),
    "batch norm, called twice": (Twice, {}),
    "convolutions": (convolutions, {"augmentations": ["flip"], "label_smoothing": 0.1}),
    "convolutions and adamw": (convolutions, {**ADAMW, "gradient_clipping": 0.3}),
    "head": (head_only, {"train": "head"}),
    "an idle parameter": (Unused, ADAMW),
}

STEPS = {"convolutions and adamw": 1e-3}
"""Of finite differences, where AdamW makes much of rounding: bias-free layers before BatchNorm."""


@pytest.mark.parametrize("case", CASES)
def test_scores_are_derivatives_by_weights(case: str) -> None:
    """30 steps, along a direction that changes the weights of all examples."""
    make, changes = CASES[case]
    direction = np.random.default_rng(0).standard_normal((1, N_TRAIN))
    spec = recipe(**changes)
    truth = differences(make, spec, direction, STEPS.get(case, 3e-5))
    assert error(replayed(make, spec) @ direction.T, truth) < PRECISION


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_scores_are_those_of_autograd_through_training(optimizer: str) -> None:
    """Each example's derivative of each output, through a plain loop that torch differentiates."""
    spec = recipe(**(ADAMW if optimizer == "adamw" else {}))
    weights = torch.ones(N_TRAIN, dtype=torch.float64, requires_grad=True)
    training = trainings.training_of(mlp, spec)
    model = made(mlp)
    names = [name for name, _ in model.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in model.parameters()]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in values]
    pictures = TASK.prepare({n: torch.from_numpy(a) for n, a in TRAIN.items()}, ENCODING)
    for step in range(training.n_steps):
        training.step = step
        rows = torch.from_numpy(training.rows())
        rate = learning_rate(spec, step, training.n_steps)
        answers = torch.func.functional_call(
            model, dict(zip(names, values, strict=True)), (pictures["input"][rows],)
        )
        losses = functional.cross_entropy(answers, pictures["label"][rows], reduction="none")
        loss = (weights[rows] * losses).sum() / weights[rows].sum()
        gradients = torch.autograd.grad(loss, values, create_graph=True)
        for n, (p, g, (m, v)) in enumerate(zip(values, gradients, moments, strict=True)):
            if optimizer == "sgd":
                g = g + 0.01 * p
                m = 0.9 * m + g
                values[n] = p - rate * (g + 0.9 * m)
            else:
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                over = (v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                values[n] = p * (1 - rate * 0.01) - rate * m / (1 - 0.9 ** (step + 1)) / over
            moments[n] = (m, v)
    tests = trainings.test_batch()
    answers = torch.func.functional_call(
        model, dict(zip(names, values, strict=True)), (tests["input"],)
    )
    outputs = margin(answers, tests["label"])
    truth = [torch.autograd.grad(f, weights, retain_graph=True)[0].numpy() for f in outputs]
    assert error(replayed(mlp, spec), np.stack(truth)) < 1e-10


TASK = trainings.TASK


def test_a_combination_of_outputs_is_one_query() -> None:
    def make() -> nn.Module:
        return mlp(nn.BatchNorm1d(7))

    weights = torch.randn(3, N_TEST, generator=torch.Generator().manual_seed(0)).double()
    single = replayed(make, recipe())
    for combinations in (weights, weights[:1]):  # several at once, and one alone
        together = replayed(make, recipe(), combinations)
        assert error(together, combinations.numpy() @ single) < 1e-12


@pytest.mark.parametrize(("optimizer", "mib"), [("sgd", 0.4), ("sgd", 0.2), ("adamw", 0.3)])
def test_recomputed_states_give_the_same_scores(optimizer: str, mib: float) -> None:
    """Dropout and augmentations are drawn again as they were; the bound is kept."""

    def make() -> nn.Module:
        return mlp(nn.BatchNorm1d(7), nn.Dropout(0.2))

    changes = ADAMW if optimizer == "adamw" else {}
    spec = recipe(augmentations=["flip", "crop"], **changes)
    bounded = replayed(make, spec, most=int(mib * 2**20))
    assert np.array_equal(bounded, replayed(make, spec))


def test_more_levels_need_less_memory() -> None:
    found = {most: segments(1000, 30, 10, most) for most in (11_000, 2_500, 1_000, 700)}
    assert [len(lengths) for lengths in found.values()] == [0, 1, 2, 3]
    for most, lengths in found.items():
        steps = [1000, *lengths]
        kept = sum(-(-a // b) for a, b in zip(steps, lengths, strict=False))
        assert not lengths or (1 + kept) * 30 + lengths[-1] * 10 <= most
    with pytest.raises(DataloupeError, match="Replay needs at least 1 MiB"):
        segments(1000, 30, 10, 60)


@pytest.mark.parametrize(
    ("architecture", "options", "changes"),
    [
        ("mlp", {"widths": [16]}, {"gradient_clipping": 0.5}),
        ("resnet-small", {"width": 4}, {"augmentations": ["flip"], **ADAMW}),
    ],
)
def test_the_replayed_model_is_the_trained_one(
    architecture: str, options: dict[str, object], changes: dict[str, object]
) -> None:
    """To the last bit, before and after the walk back."""
    task, spec = load_task("image-classification"), recipe(**changes)
    encoding = {**ENCODING, "shape": [1, 12, 12]}
    data, tests = ({**a, "input": a["input"].repeat(2, 2).repeat(2, 3)} for a in (TRAIN, TEST))

    def fresh() -> nn.Module:
        return build_model(architecture, options, encoding, 3, 0)

    wanted = train(task, fresh(), data, encoding, spec, 3, "cpu").state_dict()
    training = Training(task, fresh(), data, encoding, spec, 3, "cpu")
    before = torch.get_rng_state()
    with training.running():
        recording = Recording(training, 2**22)
        recording.run()
        batch = task.prepare({n: torch.from_numpy(a) for n, a in tests.items()}, encoding)
        for _ in range(2):
            recording.to_last()
            for name, tensor in training.model.state_dict().items():
                assert torch.equal(tensor, wanted[name]), name
            adjoints, values = adjoints_of(training, task.model_output, batch)
            with torch.no_grad():
                assert torch.equal(task.model_output(training.model.eval(), batch), values)
            recording.to_last()
            walk_back(recording, adjoints)
    assert torch.equal(torch.get_rng_state(), before)


class Moving(nn.Module):
    """A layer that keeps a moving average of its own."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(7))

    def forward(self, values: Tensor) -> Tensor:
        if self.training:
            self.average = 0.9 * self.average + 0.1 * values.mean(0).detach()
        return values - self.average


class Once(nn.Module):
    """A layer whose gradient torch cannot differentiate."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(values)
            return values.tanh()

        @staticmethod
        @once_differentiable  # type: ignore[misc]
        def backward(ctx, gradient):  # type: ignore[no-untyped-def]
            return gradient * (1 - ctx.saved_tensors[0].tanh() ** 2)

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.Function.apply(values)  # type: ignore[no-untyped-call]
        return found


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: mlp(Moving()), "cannot follow '2.average'"),
        (lambda: mlp(Once()), "second derivatives"),
    ],
)
def test_what_cannot_be_differentiated_is_refused(make: Make, text: str) -> None:
    with pytest.raises(MissingCapability, match=text) as raised:
        replayed(make, recipe(epochs=1))
    assert "\n" not in str(raised.value)


class Unbatched(nn.Module):
    """A layer that torch cannot map over several vectors."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(values)
            return values.tanh()

        @staticmethod
        def backward(ctx, gradient):  # type: ignore[no-untyped-def]
            return Unbatched.Slope.apply(  # type: ignore[no-untyped-call]
                gradient, ctx.saved_tensors[0]
            )

    class Slope(torch.autograd.Function):
        @staticmethod
        def forward(ctx, gradient, values):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(gradient, values)
            return gradient * (1 - values.tanh() ** 2)

        @staticmethod
        def backward(ctx, other):  # type: ignore[no-untyped-def]
            gradient, values = ctx.saved_tensors
            assert float(other.sum()) < 1e9  # reads a number, which vmap forbids
            slope = 1 - values.tanh() ** 2
            return other * slope, -2 * other * gradient * values.tanh() * slope

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.Function.apply(values)  # type: ignore[no-untyped-call]
        return found


def test_what_cannot_be_mapped_is_done_in_turn() -> None:
    scores = replayed(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 3), Unbatched()), recipe())
    plain = replayed(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Tanh()), recipe())
    assert error(scores, plain) < 1e-12


def test_weights_of_zero_leave_examples_out() -> None:
    """The loss of a batch is the mean over the examples that have a weight."""
    task = load_task("image-classification")
    spec = AlgorithmSpec.model_validate({**recipe(batch_size=N_TRAIN).model_dump()})
    kept = np.arange(3, N_TRAIN)
    weights = np.isin(np.arange(N_TRAIN), kept).astype(np.float64)

    def fresh() -> nn.Module:
        return build_model("mlp", {"widths": [16]}, ENCODING, 3, 0)

    weighted = train(task, fresh(), TRAIN, ENCODING, spec, 3, "cpu", weights=weights)
    without = train(task, fresh(), TRAIN, ENCODING, spec, 3, "cpu", subset=kept)
    for name, tensor in without.state_dict().items():
        torch.testing.assert_close(weighted.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
