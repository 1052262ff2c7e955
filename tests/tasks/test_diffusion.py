"""The task diffusion: its process, noise that is fixed, outputs, sampling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from engine.attribution.trak.gradients import per_example_gradients
from engine.attribution.trak.make_plan import plan_gradients
from engine.attribution.trak.make_projection import make_projection
from engine.attribution.trak.projection import project
from engine.models import build_model
from engine.store.errors import DataloupeError, SpecError
from engine.store.spec import AlgorithmSpec
from engine.tasks import Task, load_task
from engine.tasks.context import bind
from engine.tasks.denoising import errors
from engine.tasks.noising import (
    Process,
    make_process,
    normal_noise,
    streams,
    timesteps_of,
    unstacked,
)
from engine.tasks.sampling import guided, sample, spaced
from engine.training.outputs import evaluate_batch
from engine.training.stepping import Training

KINDS = [(s, p) for s in ("cosine", "linear") for p in ("v", "epsilon")]


# --- the process ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("schedule", "prediction"), KINDS)
@pytest.mark.parametrize("timesteps", [20, 1000])
def test_pictures_become_noise(schedule: Any, prediction: Any, timesteps: int) -> None:
    process = make_process(timesteps, schedule, prediction)
    torch.testing.assert_close(process.signal**2 + process.noise**2, torch.ones(timesteps))
    assert (process.signal.diff() < 0).all()
    assert process.noise[0] < 0.35
    assert process.signal[-1] < 0.02


@pytest.mark.parametrize(("schedule", "prediction"), KINDS)
def test_a_prediction_comes_to_the_picture_and_the_noise(schedule: Any, prediction: Any) -> None:
    process = make_process(100, schedule, prediction)
    picture, noise = torch.randn(2, 5, 1, 4, 4)
    here = process.at(torch.tensor([0, 10, 50, 80, 95]))
    found = here.parts(here.noisy(picture, noise), here.target(picture, noise))
    torch.testing.assert_close(found[0], picture, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found[1], noise, rtol=1e-3, atol=1e-3)


def test_both_predictions_have_the_same_errors_up_to_a_factor() -> None:
    """Where ε is off by e, v is off by e / s, if both come to the same noisy picture."""
    by_v, by_noise = (make_process(100, "cosine", p) for p in ("v", "epsilon"))
    step = torch.tensor([30])
    picture, noise = torch.randn(2, 1, 1, 4, 4)
    here, other = by_v.at(step), by_noise.at(step)
    noisy = here.noisy(picture, noise)
    guess = here.target(picture, noise) + 0.1
    as_noise = here.parts(noisy, guess)[1]
    torch.testing.assert_close(
        as_noise - other.target(picture, noise), (0.1 * here.signal).expand_as(noise)
    )


# --- noise that is fixed --------------------------------------------------------------------------


def test_noise_is_normal_and_depends_on_key_seed_and_draw_alone() -> None:
    keys, seed = torch.randint(-(2**62), 2**62, (400,)), torch.tensor([7])
    shape = torch.Size((1, 15, 15))
    first = normal_noise(streams(keys, seed, 0), shape)
    flat = first.flatten().double()
    assert abs(flat.mean()) < 4 / math.sqrt(len(flat))
    assert abs(flat.std() - 1) < 0.01
    assert abs((flat.abs() < 1).double().mean() - 0.6827) < 0.006
    assert abs((flat**4).mean() - 3) < 0.15
    between = torch.corrcoef(first.flatten(1)).fill_diagonal_(0)
    assert between.abs().max() < 6 / math.sqrt(225)
    torch.testing.assert_close(normal_noise(streams(keys[5:6], seed, 0), shape)[0], first[5])
    for other in (streams(keys, seed + 1, 0), streams(keys, seed, 1), streams(keys + 1, seed, 0)):
        both = torch.stack([flat, normal_noise(other, shape).flatten().double()])
        assert abs(torch.corrcoef(both)[0, 1]) < 5 / math.sqrt(len(flat))


def test_draws_share_out_the_timesteps() -> None:
    stream = streams(torch.arange(4000), torch.tensor([3]), 2)
    found = timesteps_of(stream, 2, 5, 0, 99)
    assert (int(found.min()), int(found.max())) == (40, 59)
    counts = torch.bincount(found - 40)
    assert counts.min() > 130, "each of the 20 has about 200"
    assert set(timesteps_of(stream, 0, 5, 7, 8).tolist()) == {7}
    assert set(timesteps_of(stream, 4, 5, 7, 8).tolist()) == {8}


# --- outputs --------------------------------------------------------------------------------------

ENCODING: dict[str, Any] = {
    "shape": [1, 8, 8],
    "mean": [0.5],
    "std": [0.5],
    "conditions": ["left", "right"],
    "timesteps": 50,
    "schedule": "cosine",
    "prediction": "v",
    "draws": 3,
    "answer": "denoiser",
    "inputs": {
        "sample": {"shape": [1, 8, 8], "dtype": "float32", "start": [], "rest": 0.0},
        "timestep": {"shape": [], "dtype": "int64", "start": [], "rest": 0},
        "class_labels": {"shape": [], "dtype": "int64", "start": [], "rest": 0},
    },
}


def task_with_seed(seed: int) -> Task:
    task = load_task("diffusion")
    assert task.context is not None
    return bind(task, task.context(torch.nn.Identity(), {}, ENCODING, seed))


def a_model() -> torch.nn.Module:
    model = build_model("unet-small", {"width": 8, "patch": 1}, ENCODING, 1, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def a_batch(n: int = 5, **changes: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    raw = {
        "input": torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8),
        "class_labels": torch.arange(n) % 2,
        "key": torch.arange(n) * 12345,
    }
    return load_task("diffusion").prepare(raw, {**ENCODING, **changes})


NAMES = [output.name for output in load_task("diffusion").outputs]


@pytest.mark.parametrize("name", [*NAMES, "timesteps:{}"])
@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_projected_gradients_are_those_of_autograd(name: str, prediction: str) -> None:
    numbers = (4, 20) if name == "timesteps:{}" else ()
    output = task_with_seed(3).output_named(name, numbers).value
    model, batch = a_model(), a_batch(prediction=prediction)
    parameters = dict(model.named_parameters())
    wanted = [
        torch.autograd.grad(output(model, batch)[row], list(parameters.values()))
        for row in range(len(batch["sample"]))
    ]
    plan = plan_gradients(model, output, batch)
    assert not plan.untapped
    found = per_example_gradients(model, output, batch, plan)
    for place, parameter in enumerate(parameters):
        each = torch.stack([row[place] for row in wanted])
        torch.testing.assert_close(found[parameter], each, rtol=1e-3, atol=1e-5)
    size = sum(parameter.numel() for parameter in parameters.values())
    exact = project(model, output, batch, make_projection(plan, model, size, None, seed=0))
    dense = torch.stack([torch.cat([part.flatten() for part in row]) for row in wanted])
    torch.testing.assert_close(exact @ exact.T, dense @ dense.T, rtol=1e-3, atol=1e-5)


def test_the_output_is_minus_the_mean_error_at_the_fixed_draws() -> None:
    task, model, batch = task_with_seed(3), a_model(), a_batch()
    process = unstacked(batch["context_process"])
    total = torch.zeros(5)
    for draw in range(3):
        stream = streams(batch["context_key"], torch.tensor([3]), draw)
        step = timesteps_of(stream, draw, 3, 0, 49)
        assert ((step >= 50 * draw // 3) & (step <= 50 * (draw + 1) // 3)).all()
        noise = normal_noise(stream, torch.Size((1, 8, 8)))
        here = process.at(step)
        with torch.no_grad():
            guess = model(here.noisy(batch["sample"], noise), step, batch["class_labels"])
        total += (guess - here.target(batch["sample"], noise)).square().mean((1, 2, 3))
    with torch.no_grad():
        torch.testing.assert_close(task.model_output(model, batch), -total / 3)
    found = evaluate_batch(task, model, batch)
    torch.testing.assert_close(found["output"], -total / 3)
    torch.testing.assert_close(found["errors"].mean(1), total / 3)
    assert (found["out_to_loss"] == 1).all()
    assert found["embeddings"].shape == (5, 16)


def test_sampled_curvature_is_the_gauss_newton_matrix_of_the_loss() -> None:
    """On average over samples, by the last layer's weights: 2/(K·pixels) Σ_k J_kᵀJ_k."""
    task, model, batch = task_with_seed(3), a_model(), a_batch(1)
    name, weight = list(model.named_parameters())[-2]
    process, wanted = unstacked(batch["context_process"]), torch.zeros(())
    for draw in range(3):
        stream = streams(batch["context_key"], torch.tensor([3]), draw)
        step = timesteps_of(stream, draw, 3, 0, 49)
        noisy = process.at(step).noisy(batch["sample"], normal_noise(stream, torch.Size((1, 8, 8))))

        def predict(
            value: torch.Tensor, noisy: torch.Tensor = noisy, step: torch.Tensor = step
        ) -> torch.Tensor:
            given = noisy, step, batch["class_labels"]
            return torch.func.functional_call(model, {name: value}, given).flatten()

        jacobian = torch.autograd.functional.jacobian(predict, weight).flatten(1)
        wanted = wanted + 2 / (3 * 64) * jacobian.T @ jacobian
    make_sample = task.outputs[0].sample
    assert make_sample is not None
    gradients = [
        torch.autograd.grad(make_sample(number)(model, batch)[0], weight)[0].flatten()
        for number in range(1500)
    ]
    rows = torch.stack(gradients)
    found = rows.T @ rows / len(rows)
    assert (found - wanted).norm() < 0.3 * wanted.norm()
    assert found.trace() == pytest.approx(wanted.trace().item(), rel=0.06)
    again = make_sample(7)(model, a_batch(5))[0]
    torch.testing.assert_close(again, make_sample(7)(model, batch)[0])


def test_a_range_of_timesteps_is_only_those() -> None:
    task, model, batch = task_with_seed(3), a_model(), a_batch()
    seen: list[torch.Tensor] = []
    hook = model.register_forward_pre_hook(
        lambda _, args, named: seen.append(named["timestep"]), with_kwargs=True
    )
    with torch.no_grad():
        found = task.output_named("timesteps:{}", (10, 12)).value(model, batch)
        hook.remove()
        assert [set(one.tolist()) for one in seen] == [{12}, {11}, {10}]
        at_each = errors(model, {**batch, "context_seed": torch.tensor([3])}, 10, 12)
        torch.testing.assert_close(found, -at_each.mean(1))
        with pytest.raises(DataloupeError, match="no timestep 51"):
            task.output_named("timesteps:{}", (0, 50)).value(model, batch)


def test_outputs_do_not_depend_on_company_and_differ_by_seed() -> None:
    model, batch = a_model(), a_batch()
    with torch.no_grad():
        first = task_with_seed(3).model_output(model, batch)
        again = task_with_seed(3).model_output(model, {k: t.flip(0) for k, t in batch.items()})
        other = task_with_seed(4).model_output(model, batch)
    torch.testing.assert_close(first, again.flip(0))
    assert not torch.allclose(first, other, rtol=1e-3)


def test_the_training_loss_is_the_mean_of_the_output_over_draws() -> None:
    """E loss = −E f, so Q = 1."""
    task, model, batch = load_task("diffusion"), a_model(), a_batch()
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = torch.stack([task.loss(model, batch, 0.0) for _ in range(600)])
        fixed = torch.stack([task_with_seed(s).model_output(model, batch) for s in range(200)])
    error = drawn.std(0) / math.sqrt(600) + fixed.std(0) / math.sqrt(200)
    assert ((drawn.mean(0) + fixed.mean(0)).abs() < 4 * error).all()
    with pytest.raises(SpecError, match="no labels to smooth"):
        task.loss(model, batch, 0.1)


# --- sampling -------------------------------------------------------------------------------------


def exact_model(process: Process, mean: torch.Tensor, deviation: torch.Tensor) -> Any:
    """The best possible predictions for pixels that are normal and independent."""

    def predict(noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        here = process.at(timestep)
        variance = here.signal**2 * deviation**2 + here.noise**2
        off = noisy - here.signal * mean
        picture = mean + here.signal * deviation**2 / variance * off
        noise = here.noise / variance * off
        return here.target(picture, noise)

    return predict


@pytest.mark.parametrize(("schedule", "prediction"), KINDS)
@pytest.mark.parametrize(("eta", "steps"), [(0.0, 200), (1.0, 400)])
def test_samples_have_the_distribution_of_the_data(
    schedule: Any, prediction: Any, eta: float, steps: int
) -> None:
    process = make_process(400, schedule, prediction)
    mean = torch.tensor([-0.7, 0.0, 0.4, 0.9]).view(1, 2, 2)
    deviation = torch.tensor([0.05, 0.3, 0.6, 0.2]).view(1, 2, 2)
    n = 4000
    found = sample(
        exact_model(process, mean, deviation),
        process,
        (1, 2, 2),
        torch.arange(n),
        steps,
        eta,
        limit=None,
    ).pictures
    slack = 5 * deviation / math.sqrt(n)
    assert ((found.mean(0) - mean).abs() < slack + 0.02).all()
    torch.testing.assert_close(found.std(0), deviation, rtol=0.06, atol=0.02)


def test_a_picture_follows_from_its_seed() -> None:
    process = make_process(50, "cosine", "v")
    predict = exact_model(process, torch.zeros(1, 4, 4), torch.full((1, 4, 4), 0.5))
    seeds = torch.tensor([5, 6, 7])
    for eta in (0.0, 1.0):
        every = sample(predict, process, (1, 4, 4), seeds, 50, eta, frames=4)
        alone = sample(predict, process, (1, 4, 4), seeds[1:2], 50, eta, frames=4)
        torch.testing.assert_close(alone.pictures[0], every.pictures[1])
        torch.testing.assert_close(alone.frames[0], every.frames[1])
        assert not torch.allclose(every.pictures[0], every.pictures[1], atol=1e-2)
        assert every.pictures.abs().max() <= 1
        assert every.timesteps == (49, 33, 16, 0)
        assert every.denoised.shape == every.frames.shape == (3, 4, 1, 4, 4)


def test_guidance_moves_away_from_other_classes() -> None:
    asked: list[torch.Tensor] = []

    def predict(noisy: torch.Tensor, step: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        asked.append(labels)
        return noisy + labels.float().square()[:, None]

    noisy, step, labels = torch.zeros(3, 2), torch.zeros(3), torch.tensor([0, 1, 3])
    squares = torch.tensor([0.0, 1.0, 4.0, 9.0])
    own, rest = squares[labels], (squares.sum() - squares[labels]) / 3
    found = guided(predict, labels, 4, 0.5)(noisy, step)
    torch.testing.assert_close(found, (own + 0.5 * (own - rest))[:, None].expand(3, 2))
    assert all((other != labels).all() for other in asked[1:])
    asked.clear()
    torch.testing.assert_close(guided(predict, labels, 4, 0.0)(noisy, step)[:, 0], own)
    assert len(asked) == 1
    asked.clear()
    guided(predict, labels, 500, 1.0)(noisy, step)
    assert len(asked) == 11, "of many classes only some are asked"
    assert len({int(other[0]) for other in asked}) == 11


def test_guided_pictures_are_farther_from_those_of_the_other_class() -> None:
    process = make_process(100, "cosine", "v")
    deviation = torch.full((1, 2, 2), 0.3)
    models = [exact_model(process, torch.full((1, 2, 2), mean), deviation) for mean in (-0.3, 0.3)]
    labels = torch.arange(200) % 2

    def predict(noisy: torch.Tensor, step: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        both = torch.stack([model(noisy, step) for model in models])
        return both[labels, torch.arange(len(labels))]

    def mean_of_second(guidance: float) -> float:
        use = guided(predict, labels, 2, guidance)
        found = sample(use, process, (1, 2, 2), torch.arange(200), 30, limit=None)
        return float(found.pictures[labels == 1].mean())

    assert mean_of_second(0.0) == pytest.approx(0.3, abs=0.08)
    assert mean_of_second(1.0) > mean_of_second(0.0) + 0.2


def test_steps_are_spread_over_all_timesteps() -> None:
    assert spaced(1000, 1000) == list(range(999, -1, -1))
    assert spaced(10, 3) == [9, 4, 0]
    assert spaced(3, 3) == [2, 1, 0]


# --- what training draws --------------------------------------------------------------------------


def drawn(subset: list[int] | None) -> dict[tuple[int, int], tuple[int, torch.Tensor]]:
    """(epoch, row) → the timestep and the noisy picture that a training shows of it."""
    torch.manual_seed(2)
    arrays = {
        "input": np.random.default_rng(0).integers(0, 256, (23, 1, 8, 8), dtype=np.uint8),
        "class_labels": np.arange(23) % 2,
        "key": np.arange(23) * 12345,
    }
    recipe = AlgorithmSpec(architecture="unet-small", epochs=3, batch_size=4, optimizer="adamw")
    rows = None if subset is None else np.array(subset)
    training = Training(load_task("diffusion"), a_model(), arrays, ENCODING, recipe, 5, "cpu", rows)
    found: dict[tuple[int, int], tuple[int, torch.Tensor]] = {}

    def keep(_: Any, args: Any, named: dict[str, torch.Tensor]) -> None:
        epoch, numbers = training.step // training.steps_per_epoch, training.rows().tolist()
        for row, step, noisy in zip(numbers, named["timestep"], named["sample"], strict=True):
            found[epoch, row] = int(step), noisy.clone()

    with training.running():
        hook = training.model.register_forward_pre_hook(keep, with_kwargs=True)
        for _ in range(training.n_steps):
            training.advance()
        hook.remove()
    return found


def test_training_draws_the_same_for_an_example_without_some_others() -> None:
    """They come to stand elsewhere in their batches, and in other batches."""
    every, some = drawn(None), drawn([row for row in range(23) if row not in (3, 8, 9, 20)])
    both = every.keys() & some.keys()
    assert len(both) > 30
    for key in both:
        assert every[key][0] == some[key][0]
        torch.testing.assert_close(every[key][1], some[key][1])
    of_one = [every[key][0] for key in every if key[1] == 5]
    assert len(set(of_one)) > 1, "another timestep in every epoch"
    steps = [step for step, _ in every.values()]
    assert min(steps) < 10
    assert max(steps) > 39
