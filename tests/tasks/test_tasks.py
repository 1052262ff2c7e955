"""The margin against its definition, augmentations against loops, words against examples."""

from __future__ import annotations

import math
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from engine.store.errors import DataError, SpecError
from engine.tasks import TASKS, load_task
from engine.tasks.classification import loss
from engine.tasks.classification import margin_of_label as model_output
from engine.tasks.image_classification import augment, prepare
from engine.tasks.margin import margin, margin_to_loss
from engine.tasks.text_classification import Options, encode, plan_encoding, words

finite = st.floats(-30, 30, allow_nan=False, width=64)


@st.composite
def logits_and_labels(draw: Any) -> tuple[torch.Tensor, torch.Tensor]:
    batch, classes = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    rows = st.lists(finite, min_size=classes, max_size=classes)
    logits = draw(st.lists(rows, min_size=batch, max_size=batch))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=batch, max_size=batch))
    return torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)


# --- the margin -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(logits_and_labels())
def test_margin_is_the_log_odds_of_the_label(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = case
    found = margin(logits, labels)
    for row, label, value in zip(logits.tolist(), labels.tolist(), found.tolist(), strict=True):
        weights = [math.exp(logit - max(row)) for logit in row]
        others = math.fsum(w for i, w in enumerate(weights) if i != label)
        if weights[label] > 0 and others > 0:
            assert value == pytest.approx(math.log(weights[label] / others), abs=1e-9)


@settings(deadline=None)
@given(logits_and_labels())
def test_out_to_loss_is_the_slope_of_the_loss(case: tuple[torch.Tensor, torch.Tensor]) -> None:
    """dloss/dlogits = dloss/dmargin · dmargin/dlogits, with dloss/dmargin = −Q."""
    logits, labels = case
    logits = logits.requires_grad_()
    margins = margin(logits, labels)
    (of_margin,) = torch.autograd.grad(margins.sum(), logits)
    losses = functional.cross_entropy(logits, labels, reduction="sum")
    (of_loss,) = torch.autograd.grad(losses, logits)
    q = margin_to_loss(margins).unsqueeze(1)
    torch.testing.assert_close(of_loss, -q * of_margin, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(functional.softplus(-margins).sum(), losses, atol=1e-9, rtol=1e-9)


def test_a_confident_model_has_a_finite_margin() -> None:
    logits = torch.tensor([[1e4, 0.0, 0.0], [-1e4, 0.0, 0.0]])
    labels = torch.tensor([0, 0])
    expected = torch.tensor([1e4, -1e4]) - math.log(2)
    torch.testing.assert_close(margin(logits, labels), expected)
    assert margin_to_loss(margin(logits, labels)).tolist() == [0.0, 1.0]


def test_margin_works_one_example_at_a_time() -> None:
    logits, labels = (
        torch.randn(5, 4, generator=torch.Generator().manual_seed(0)),
        torch.arange(5) % 4,
    )
    one_by_one = torch.func.vmap(lambda x, y: margin(x[None], y[None])[0])(logits, labels)
    torch.testing.assert_close(one_by_one, margin(logits, labels))


def test_loss_and_model_output_go_through_the_model() -> None:
    model = torch.nn.Linear(3, 4)
    batch = {"input": torch.randn(6, 3), "label": torch.arange(6) % 4}
    logits = model(batch["input"])
    torch.testing.assert_close(model_output(model, batch), margin(logits, batch["label"]))
    log_p = logits.log_softmax(1)
    own = log_p.gather(1, batch["label"][:, None])[:, 0]
    torch.testing.assert_close(loss(model, batch, 0.0), -own)
    torch.testing.assert_close(loss(model, batch, 0.2), -0.8 * own - 0.2 * log_p.mean(1))


# --- pictures as the model takes them -------------------------------------------------------------


def test_prepare_normalizes_each_channel() -> None:
    raw = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).view(2, 3, 2, 2)
    encoding = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 1.0, 2.0]}
    found = prepare({"input": raw, "label": torch.tensor([0, 1])}, encoding)
    assert found["input"].dtype == torch.float32
    assert found["label"].tolist() == [0, 1]
    for channel in range(3):
        expected = (raw[:, channel] / 255 - encoding["mean"][channel]) / encoding["std"][channel]
        torch.testing.assert_close(found["input"][:, channel], expected)
    assert raw.dtype == torch.uint8


def augmented(pictures: torch.Tensor, *names: str, seed: int = 0) -> torch.Tensor:
    batch = {"input": pictures, "label": torch.zeros(len(pictures), dtype=torch.int64)}
    return augment(batch, names, torch.Generator().manual_seed(seed))["input"]


def pictures(n: int, side: int = 8) -> torch.Tensor:
    return torch.randn(n, 2, side, side, generator=torch.Generator().manual_seed(1))


def test_flip_mirrors_about_half() -> None:
    before = pictures(400)
    after = augmented(before, "flip")
    same = (after == before).flatten(1).all(1)
    mirrored = (after == before.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 150 < same.sum() < 250


def test_crop_is_a_window_of_the_reflected_picture() -> None:
    before = pictures(300)
    after = augmented(before, "crop")
    padded = functional.pad(before, [4] * 4, mode="reflect")
    places = set()
    for picture, source in zip(after, padded, strict=True):
        found = [
            (top, left)
            for top in range(9)
            for left in range(9)
            if torch.equal(picture, source[:, top : top + 8, left : left + 8])
        ]
        assert found
        places.add(found[0])
    assert {top for top, _ in places} == {left for _, left in places} == set(range(9))


def test_crop_takes_pictures_smaller_than_its_border() -> None:
    assert augmented(pictures(5, side=3), "crop").shape == (5, 2, 3, 3)
    assert torch.equal(augmented(pictures(5, side=1), "crop"), pictures(5, side=1))


def test_cutout_blanks_one_square() -> None:
    after = augmented(pictures(200), "cutout")
    blank = (after == 0).all(1)
    for picture in blank:
        rows, columns = picture.any(1), picture.any(0)
        assert torch.equal(picture, rows[:, None] & columns[None, :])
        for inside in (rows, columns):
            assert 1 <= inside.sum() <= 2  # a quarter of 8, or cut by the edge


def test_augmentations_follow_their_generator_and_order() -> None:
    before = pictures(50)
    names = ("flip", "crop", "cutout")
    assert torch.equal(augmented(before, *names), augmented(before, *names))
    assert not torch.equal(augmented(before, *names), augmented(before, *names, seed=1))
    state = torch.get_rng_state()
    kept = before.clone()
    augmented(before, *names)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(before, kept)


def test_unknown_augmentations_are_named() -> None:
    with pytest.raises(SpecError, match=r"'flop' is not known.*take flip, crop, cutout"):
        augmented(pictures(1), "flop")
    task = load_task("text-classification")
    batch = {"input": torch.zeros(1, 1)}
    with pytest.raises(SpecError, match="'flip' is not known; text classification has none"):
        task.augment(batch, ["flip"], torch.Generator())
    assert task.augment(batch, [], torch.Generator()) is batch


# --- texts ----------------------------------------------------------------------------------------


def test_words() -> None:
    assert words("Don't PANIC: it's 42_times—größer, 東京!") == (
        ["don't", "panic", "it's", "42", "times", "größer", "東", "京"]
    )
    assert words(" ...'' ") == []


def rows_of(*texts: Any) -> datasets.Dataset:
    n = len(texts)
    ids = [f"train-{i}" for i in range(n)]
    return datasets.Dataset.from_dict({"input": list(texts), "label": [0] * n, "id": ids})


def test_the_vocabulary_is_that_of_the_training_texts() -> None:
    rows = rows_of("b a b", "c a b")
    options = Options(max_vocabulary=2, max_tokens=10)
    encoding = plan_encoding(rows, options, ["x"])
    assert encoding == {"vocabulary": ["<padding>", "<unknown>", "b", "a"], "max_tokens": 3}
    test = [
        {"input": "A z b b b", "label": 1, "id": "test-0"},
        {"input": "b", "label": 0, "id": "test-1"},
    ]
    encoded = encode(test, options, encoding)
    np.testing.assert_array_equal(encoded.arrays["input"], [[3, 1, 2], [2, 0, 0]])
    assert encoded.arrays["input"].dtype == encoded.arrays["label"].dtype == np.int64
    np.testing.assert_array_equal(encoded.arrays["label"], [1, 0])
    assert encoded.columns == {"text": ["A z b b b", "b"]}
    assert encoded.thumbnails is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("?!", "the text '[?]!' has no words"), (None, "nothing was found"), (3, "int was found")],
)
def test_a_bad_text_names_its_example(text: Any, message: str) -> None:
    encoding = {"vocabulary": ["<padding>", "<unknown>"], "max_tokens": 3}
    with pytest.raises(DataError, match=f"^example 'test-7': .*{message}"):
        encode([{"input": text, "label": 0, "id": "test-7"}], Options(), encoding)


# --- the registry ---------------------------------------------------------------------------------


def test_every_task_loads_under_its_name() -> None:
    for name in TASKS:
        assert load_task(name).name == name
    with pytest.raises(SpecError, match="the tasks are diffusion, image-classification, "):
        load_task("image-captioning")
