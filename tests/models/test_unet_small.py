"""The built-in U-Net: shapes, what it refuses, and that every gradient has a rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engine.attribution.trak.make_plan import plan_gradients
from engine.models import build_model
from engine.models.denoising import DENOISER, picture_of
from engine.store.errors import SpecError


def encoding(shape: list[int], classes: int = 0) -> dict[str, Any]:
    number = {"shape": [], "dtype": "int64", "start": [], "rest": 0}
    inputs = {"sample": {**number, "shape": shape, "dtype": "float32"}, "timestep": number}
    inputs |= {"class_labels": number} if classes else {}
    conditions = [f"class {n}" for n in range(classes)]
    return {"shape": shape, "conditions": conditions, "answer": DENOISER, "inputs": inputs}


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ([1, 28, 28], {}),
        ([3, 32, 32], {}),
        ([3, 32, 48], {"levels": 3, "blocks": 2, "width": 8}),
        ([1, 9, 7], {"patch": 1, "width": 8, "groups": 3}),
    ],
)
def test_it_gives_pictures_of_the_shape_of_its_input(
    shape: list[int], options: dict[str, Any]
) -> None:
    model = build_model("unet-small", options, encoding(shape), 1, seed=0)
    answer = model(torch.randn(2, *shape), torch.tensor([0, 900]))
    assert answer.shape == (2, *shape)
    assert not answer.any(), "before training it predicts 0"


def test_its_defaults_have_the_documented_size() -> None:
    model = build_model("unet-small", {}, encoding([1, 28, 28], 10), 1, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 430_500


def drawn(classes: int) -> torch.nn.Module:
    """A model with weights that are not 0."""
    options = {"width": 8, "patch": 1}
    model = build_model("unet-small", options, encoding([1, 8, 8], classes), 1, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_timesteps_and_classes_change_the_answer() -> None:
    model, x = drawn(3), torch.randn(1, 1, 8, 8)
    step, kind = torch.tensor([5]), torch.tensor([0])
    first = model(x, step, kind)
    assert not torch.allclose(first, model(x, step + 1, kind), atol=1e-5)
    assert not torch.allclose(first, model(x, step, kind + 1), atol=1e-4)


def test_every_parameter_has_a_rule_for_its_gradient() -> None:
    model = drawn(3)
    batch = {
        "sample": torch.randn(4, 1, 8, 8),
        "timestep": torch.tensor([1, 200, 400, 900]),
        "class_labels": torch.tensor([0, 1, 2, 2]),
    }
    plan = plan_gradients(model, lambda m, b: m(**b).square().flatten(1).sum(1), batch)
    assert not plan.untapped
    assert set(plan.shapes) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("shape", "options", "why"),
    [
        ([1, 27, 27], {}, "does not divide"),
        ([1, 8, 8], {"levels": 4}, "too small"),
        ([1, 28, 28], {"width": 9}, "even"),
        ([1, 28, 28], {"heads": 7}, "heads must divide"),
        ([1, 28, 28], {"patch": 0}, "greater than or equal to 1"),
    ],
)
def test_it_refuses_what_does_not_fit(shape: list[int], options: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        build_model("unet-small", options, encoding(shape), 1, seed=0)


def test_it_is_for_denoising_only() -> None:
    with pytest.raises(SpecError, match="task diffusion"):
        build_model("unet-small", {}, {"shape": [1, 28, 28]}, 10, seed=0)


def test_answers_of_other_libraries_are_read() -> None:
    picture = torch.zeros(2, 1, 8, 8)
    named = type("Output", (), {"sample": picture})()
    assert all(picture_of(one) is picture for one in (picture, (picture,), named))
    with pytest.raises(SpecError, match=r"in an object with \.sample"):
        picture_of({"logits": picture})
