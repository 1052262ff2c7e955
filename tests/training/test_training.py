"""The trainer against a plain torch loop; outputs against the model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from engine.models import build_model
from engine.store.errors import DataError, DataloupeError
from engine.store.spec import AlgorithmSpec
from engine.tasks import load_task
from engine.training.optimizer import learning_rate
from engine.training.outputs import batches, evaluate
from engine.training.trainer import train

TASK = load_task("image-classification")
ENCODING = {"shape": [1, 12, 12], "mean": [0.5], "std": [0.25], "cell": 12}
N_CLASSES = 3


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """70 pictures; the class is where the bright third lies."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, N_CLASSES, 70)
    pictures = rng.integers(0, 120, (70, 1, 12, 12), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        picture[0, label * 4 : label * 4 + 4] += 60
    return {"input": pictures, "label": labels.astype(np.int64)}


def fresh(architecture: str = "mlp", seed: int = 0) -> nn.Module:
    options = {"mlp": {"widths": [16]}, "resnet-small": {"width": 4}}[architecture]
    return build_model(architecture, options, ENCODING, N_CLASSES, seed)


def recipe(**changes: object) -> AlgorithmSpec:
    plain = {"epochs": 3, "batch_size": 16, "learning_rate": 0.05}
    return AlgorithmSpec.model_validate({**plain, **changes})


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def inputs_of(arrays: dict[str, np.ndarray]) -> torch.Tensor:
    return (torch.from_numpy(arrays["input"]).float() / 255 - 0.5) / 0.25


@pytest.mark.parametrize("changes", [{}, {"train": "head"}, {"augmentations": ["flip"]}])
def test_micro_batches_train_the_same_model(
    arrays: dict[str, np.ndarray], changes: dict[str, object]
) -> None:
    found = [
        train(TASK, fresh(), arrays, ENCODING, recipe(**changes, **micro), 1, "cpu")
        for micro in ({}, {"micro_batch_size": 5})
    ]
    for one, other in zip(found[0].parameters(), found[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


# --- the loop -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["triangular", "cosine", "constant"])
def test_one_batch_of_everything_is_full_batch_descent(
    optimizer: str, schedule: str, arrays: dict[str, np.ndarray]
):
    """With one batch an epoch the order does not matter, so a plain loop must agree."""
    spec = recipe(
        epochs=6, batch_size=100, optimizer=optimizer, schedule=schedule, label_smoothing=0.1
    )
    trained = train(TASK, fresh(), arrays, ENCODING, spec, 5, "cpu")
    model, x, y = fresh(), inputs_of(arrays), torch.from_numpy(arrays["label"])
    parts = (
        torch.optim.AdamW(model.parameters(), weight_decay=5e-4)
        if optimizer == "adamw"
        else torch.optim.SGD(
            model.parameters(), momentum=0.9, nesterov=True, weight_decay=5e-4, lr=1.0
        )
    )
    for step in range(6):
        parts.param_groups[0]["lr"] = learning_rate(spec, step, 6)
        parts.zero_grad()
        F.cross_entropy(model(x), y, label_smoothing=0.1).backward()
        parts.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["mlp", "resnet-small"])
def test_training_reduces_the_loss(architecture: str, arrays: dict[str, np.ndarray]):
    losses: list[tuple[int, float]] = []
    model = train(
        TASK,
        fresh(architecture),
        arrays,
        ENCODING,
        recipe(epochs=12),
        0,
        "cpu",
        on_epoch=lambda epoch, loss: losses.append((epoch, loss)),
    )
    assert not any(module.training for module in model.modules())
    predicted = evaluate(TASK, model, arrays, ENCODING, 32, "cpu")["logits"].argmax(1)
    assert (predicted == arrays["label"]).mean() > 0.9
    assert [epoch for epoch, _ in losses] == list(range(1, 13))
    assert losses[-1][1] < losses[0][1] / 2


@pytest.mark.parametrize("augmentations", [[], ["flip", "crop"]])
def test_the_seed_fixes_every_byte(augmentations: list[str], arrays: dict[str, np.ndarray]):
    spec = recipe(epochs=2, augmentations=augmentations)

    def run(seed: int) -> nn.Module:
        return train(TASK, fresh("resnet-small"), arrays, ENCODING, spec, seed, "cpu")

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = run(3)
    assert torch.equal(torch.get_rng_state(), before), "training moved the global generator"
    torch.manual_seed(2)
    assert same(first, run(3))
    assert not same(first, run(4))


def test_augmentations_change_the_model(arrays: dict[str, np.ndarray]):
    plain, flipped = (
        train(TASK, fresh(), arrays, ENCODING, recipe(augmentations=names), 0, "cpu")
        for names in ([], ["flip"])
    )
    assert not same(plain, flipped)


def test_dropout_is_seeded(arrays: dict[str, np.ndarray]):
    def run(seed: int) -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), fresh().trunk[1], nn.Linear(16, 3))
        for parameter in model.parameters():
            nn.init.constant_(parameter, 0.01)
        return train(TASK, model, arrays, ENCODING, recipe(batch_size=70), seed, "cpu")

    torch.manual_seed(5)
    first = run(0)
    torch.manual_seed(6)
    assert same(first, run(0))
    assert not same(first, run(1))


def test_only_the_subset_is_trained_on(arrays: dict[str, np.ndarray]):
    subset = np.array([5, 1, 60, 33, 8, 40])
    alone = {name: array[subset] for name, array in arrays.items()}
    # Fewer than a batch: one smaller batch an epoch, so the order only changes the rounding.
    on_subset = train(TASK, fresh(), arrays, ENCODING, recipe(), 0, "cpu", subset=subset)
    on_copy = train(TASK, fresh(), alone, ENCODING, recipe(), 0, "cpu")
    for name, weights in on_subset.state_dict().items():
        torch.testing.assert_close(weights, on_copy.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_a_subset_is_seen_in_the_order_of_all_examples(arrays: dict[str, np.ndarray]):
    import dataclasses

    def rows_seen(subset: np.ndarray | None) -> list[list[int]]:
        """Rows in the order of training, for each epoch."""
        seen: list[list[int]] = []

        def loss(model: nn.Module, batch: dict[str, torch.Tensor], smoothing: float):
            seen.append(batch["input"].tolist())
            return model(torch.ones(len(batch["input"]), 1)).squeeze(1)

        task = dataclasses.replace(TASK, prepare=lambda batch, encoding: batch, loss=loss)
        rows = {"input": np.arange(64), "label": arrays["label"][:64]}
        one = recipe(epochs=3).model_copy(update={"batch_size": 8})
        train(task, nn.Linear(1, 1), rows, ENCODING, one, 0, "cpu", subset=subset)
        steps = len(seen) // 3
        return [
            [row for batch in seen[steps * n : steps * (n + 1)] for row in batch] for n in range(3)
        ]

    whole, kept = rows_seen(None), np.setdiff1d(np.arange(64), np.arange(3, 19))
    for epoch, of_subset in zip(whole, rows_seen(kept), strict=True):
        assert of_subset == [row for row in epoch if row in kept]
    assert whole[0] != whole[1]


def test_the_last_partial_batch_is_dropped_and_every_epoch_is_another_shuffle(
    arrays: dict[str, np.ndarray],
):
    """A task that counts what it is fed."""
    import dataclasses

    rows = {"input": np.arange(70), "label": arrays["label"]}
    seen: list[list[int]] = []

    def loss(model: nn.Module, batch: dict[str, torch.Tensor], smoothing: float) -> torch.Tensor:
        seen.append(batch["input"].tolist())
        return model(torch.ones(len(batch["input"]), 1)).squeeze(1)

    task = dataclasses.replace(TASK, prepare=lambda batch, encoding: batch, loss=loss)
    train(task, nn.Linear(1, 1), rows, ENCODING, recipe(epochs=2), 0, "cpu")
    assert [len(batch) for batch in seen] == [16] * 8
    epochs = [[row for batch in part for row in batch] for part in (seen[:4], seen[4:])]
    assert all(len(set(epoch)) == 64 for epoch in epochs)
    assert epochs[0] != epochs[1] != sorted(epochs[1])


@pytest.mark.parametrize("size", [0, 1])
def test_too_few_examples(size: int, arrays: dict[str, np.ndarray]):
    with pytest.raises(DataError, match=f"2 or more examples, not {size}"):
        train(TASK, fresh(), arrays, ENCODING, recipe(), 0, "cpu", subset=np.arange(size))


def test_divergence_names_the_learning_rate(arrays: dict[str, np.ndarray]):
    spec = recipe(epochs=8, learning_rate=1000, momentum=0.99)
    with pytest.raises(DataloupeError, match=r"diverged.*learning_rate than 1000"):
        train(TASK, fresh(), arrays, ENCODING, spec, 0, "cpu")


def test_divergence_at_the_very_last_step_is_noticed(arrays: dict[str, np.ndarray]):
    model = fresh()
    with torch.no_grad():
        model.head.bias.fill_(3e38)  # the loss is finite, the weights after the step are not
    spec = recipe(epochs=1, batch_size=70, weight_decay=1e3, schedule="constant", warmup=0)
    with pytest.raises(DataloupeError, match=r"head\.bias is not finite"):
        train(TASK, model, arrays, ENCODING, spec, 0, "cpu")


# --- the schedule ---------------------------------------------------------------------------------


@given(
    st.sampled_from(["triangular", "cosine", "constant"]),
    st.floats(0, 1),
    st.integers(1, 300),
)
def test_the_rate_rises_over_the_warmup_then_falls(schedule: str, warmup: float, n_steps: int):
    spec = recipe(schedule=schedule, warmup=warmup, learning_rate=0.5)
    rates = [learning_rate(spec, step, n_steps) for step in range(n_steps)]
    assert all(0 < rate <= 0.5 for rate in rates)
    peak = math.floor(warmup * n_steps)
    rising, falling = rates[:peak], rates[peak:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    if falling:
        assert falling[0] == 0.5


def test_the_rate_of_the_design():
    spec = recipe(schedule="triangular", warmup=0.2, learning_rate=0.2)
    rates = [learning_rate(spec, step, 10) for step in range(10)]
    np.testing.assert_allclose(
        rates, [0.1, 0.2, 0.2, 0.175, 0.15, 0.125, 0.1, 0.075, 0.05, 0.025], rtol=1e-12
    )


# --- outputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["mlp", "resnet-small"])
@pytest.mark.parametrize("batch_size", [1, 32, 100])
def test_outputs_equal_those_of_the_model(
    architecture: str, batch_size: int, arrays: dict[str, np.ndarray]
):
    model = fresh(architecture)
    found = evaluate(TASK, model, arrays, ENCODING, batch_size, "cpu")
    with torch.no_grad():
        logits = model(inputs_of(arrays)).numpy()
        embeddings = model.embed(inputs_of(arrays)).numpy()
    rows, labels = np.arange(70), arrays["label"]
    p = np.exp(logits.astype(np.float64))
    p = (p / p.sum(1, keepdims=True))[rows, labels]
    assert set(found) == {"logits", "output", "out_to_loss", "embeddings"}
    assert all(array.dtype == np.float32 for array in found.values())
    np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(found["embeddings"], embeddings, atol=1e-5)
    np.testing.assert_allclose(found["output"], np.log(p / (1 - p)), atol=1e-4)
    np.testing.assert_allclose(found["out_to_loss"], 1 - p, atol=1e-5)


def test_outputs_take_one_forward_pass_per_batch(arrays: dict[str, np.ndarray]):
    model = fresh()
    calls: list[int] = []
    model.trunk.register_forward_hook(lambda *_: calls.append(1))
    evaluate(TASK, model, arrays, ENCODING, 35, "cpu")
    assert len(calls) == 2


def test_outputs_of_a_model_in_train_mode_and_without_embeddings(arrays: dict[str, np.ndarray]):
    class Plain(nn.Sequential):
        pass

    model = Plain(nn.Flatten(), nn.BatchNorm1d(144), nn.Linear(144, 3)).train()
    found = evaluate(TASK, model, arrays, ENCODING, 8, "cpu")
    again = evaluate(TASK, model, arrays, ENCODING, 70, "cpu")
    assert set(found) == {"logits", "output", "out_to_loss"}
    np.testing.assert_allclose(found["logits"], again["logits"], atol=1e-5)


def test_batches_are_slices_in_order_and_copies(arrays: dict[str, np.ndarray]):
    frozen = {name: array.copy() for name, array in arrays.items()}
    for array in frozen.values():
        array.setflags(write=False)
    parts = list(batches(TASK, frozen, ENCODING, 16, "cpu", start=3, stop=40))
    assert [len(batch["label"]) for batch in parts] == [16, 16, 5]
    joined = torch.cat([batch["input"] for batch in parts])
    torch.testing.assert_close(joined, inputs_of(arrays)[3:40])
    assert len(list(batches(TASK, frozen, ENCODING, 16, "cpu", start=60))) == 1
    assert list(batches(TASK, frozen, ENCODING, 16, "cpu", start=70, stop=99)) == []


def test_text_trains_too():
    task = load_task("text-classification")
    encoding = {"vocabulary": ["", "?", *"abcd"], "max_tokens": 5}
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64)
    tokens = np.where(
        labels[:, None] == 1, rng.integers(2, 4, (64, 5)), rng.integers(4, 6, (64, 5))
    )
    arrays = {"input": tokens.astype(np.int64), "label": labels.astype(np.int64)}
    model = build_model("embedding-bag", {}, encoding, 2, 0)
    model = train(task, model, arrays, encoding, recipe(epochs=10), 0, "cpu")
    found = evaluate(task, model, arrays, encoding, 16, "cpu")
    assert (found["logits"].argmax(1) == labels).all()
    assert found["embeddings"].shape == (64, 64)
