"""The loss of denoising, its outputs, and what is kept of them.

A model predicts the target of a noisy picture (`engine.tasks.noising`); its error is the mean
squared difference over pixels. Training draws a timestep and noise whenever it sees a picture. The
output is minus the mean error over `draws` timesteps, one in each of as many equal parts of all of
them, with noise that is fixed for each example and model:

    f = −1/K Σ_k mean_pixels (prediction(x_{t_k}, t_k) − target_k)²        loss = −f,  Q = 1

so a positive score supports: training on the example lowered the error. Examples always stand with
the gradient of this f, whatever is explained of a test picture: it is what they were trained on.

The loss is the square of many numbers, so its Gauss-Newton matrix, 2/(K·pixels) Σ_k J_kᵀJ_k with
J_k the derivative of the prediction at draw k, has nothing to do with the gradient of f, which is
small wherever the model has learned the example. It is sampled: with v of the standard normal
distribution and a random draw k, the gradient of √(2/pixels) vᵀ prediction(x_{t_k}, t_k) has this
matrix as mean outer product (Martens 2020, arXiv 1412.1193, section 11; for diffusion models,
Mlodozeniec et al. 2025, arXiv 2410.13850). A sample takes one pass over the model where f takes K.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from engine.models.calling import CONTEXT, DRAWS_FROM, call
from engine.models.denoising import picture_of
from engine.store.errors import DataloupeError, SpecError
from engine.store.records import OutputChoice
from engine.tasks import ModelOutput
from engine.tasks.noising import Process, normal_noise, streams, timesteps_of, unstacked

if TYPE_CHECKING:
    from engine.attribution.trak.plan import Batch

SAMPLE, LABELS = "sample", "class_labels"
"""Inputs of a model: pictures, which a prepared batch has without noise, and their classes."""
KEY = f"{CONTEXT}key"
"""Tensor `[batch]` of a prepared batch: a number for each example, which its noise comes from."""
PROCESS = f"{CONTEXT}process"
"""`[batch, 4, T]`: the tables of the process, the same for all examples."""
DRAWS = f"{CONTEXT}draws"
"""`[batch, K]`: numbers of an example's draws; there are as many as columns."""
SEED = f"{CONTEXT}seed"
"""`[1]`: the model's seed; of the context."""
_OF_TRAINING, _OF_SAMPLES = -1, 2**20
"""The draw of training, and that of sampled curvature; those of outputs count from 0."""
ERRORS = "errors"
"""Record `[batch, K]`: the mean squared error at each draw, from the least noisy part on."""


def predict(model: torch.nn.Module, batch: Batch, noisy: Tensor, timestep: Tensor) -> Tensor:
    """What a model predicts of noisy pictures `[batch, c, h, w]` at timesteps `[batch]`."""
    inputs = {name: tensor for name, tensor in batch.items() if name != SAMPLE}
    return picture_of(call(model, {SAMPLE: noisy, "timestep": timestep, **inputs})).float()


def _difference(
    model: torch.nn.Module, batch: Batch, process: Process, timestep: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """(prediction − target, prediction), `[batch, pixels]` each."""
    here, picture = process.at(timestep), batch[SAMPLE]
    predicted = predict(model, batch, here.noisy(picture, noise), timestep)
    return (predicted - here.target(picture, noise)).flatten(1), predicted.flatten(1)


def loss(model: torch.nn.Module, batch: Batch, label_smoothing: float) -> Tensor:
    """Errors `[batch]` at a timestep and with noise that are drawn anew in every epoch.

    They follow from the example and the epoch, not from its place in a batch, so a training without
    some examples draws the same for the others.
    """
    if label_smoothing:
        raise SpecError(
            f"label_smoothing = {label_smoothing:g}: denoising has no labels to smooth. Remove the "
            "key."
        )
    process, picture = unstacked(batch[PROCESS]), batch[SAMPLE]
    number = batch.get(DRAWS_FROM)
    if number is None:
        number = torch.randint(2**62, (1,), device=picture.device)
    stream = streams(batch[KEY], number[:1], _OF_TRAINING)
    timestep = timesteps_of(stream, 0, 1, 0, process.timesteps - 1)
    noise = normal_noise(stream, picture.shape[1:])
    return _difference(model, batch, process, timestep, noise)[0].square().mean(1)


# --- the outputs ----------------------------------------------------------------------------------

Measure = Callable[[Tensor, Tensor], Tensor]
"""(prediction − target, prediction), `[batch, pixels]` each → `[batch]`."""


def measured(
    model: torch.nn.Module, batch: Batch, measure: Measure, first: int = 0, last: int | None = None
) -> Tensor:
    """A measure of the model's predictions at each of an example's draws, `[batch, draws]`.

    The least noisy draw comes last, so the embedding of an example is that of this one.

    Args:
        first, last: Timesteps from 0, between which draws are spread; None: the last of all.
    """
    process, picture = unstacked(batch[PROCESS]), batch[SAMPLE]
    draws = batch[DRAWS].shape[1]
    last = process.timesteps - 1 if last is None else last
    if last >= process.timesteps:
        raise DataloupeError(
            f"There is no timestep {1 + last:,}: there are {process.timesteps:,}. Choose others."
        )
    found = []
    for draw in reversed(range(draws)):
        stream = streams(batch[KEY], batch[SEED], draw)
        timestep = timesteps_of(stream, draw, draws, first, last)
        noise = normal_noise(stream, picture.shape[1:])
        found.append(measure(*_difference(model, batch, process, timestep, noise)))
    return torch.stack(found[::-1], 1)


def squared_error(difference: Tensor, predicted: Tensor) -> Tensor:
    """The mean squared error, as a `Measure`."""
    return difference.square().mean(1)


def errors(model: torch.nn.Module, batch: Batch, first: int = 0, last: int | None = None) -> Tensor:
    """Squared errors `[batch, draws]`. Arguments as of `measured`."""
    return measured(model, batch, squared_error, first, last)


def _mean_of(measure: Measure, sign: int) -> Callable[[torch.nn.Module, Batch], Tensor]:
    return lambda model, batch: sign * measured(model, batch, measure).mean(1)


def sampled_prediction(number: int) -> Callable[[torch.nn.Module, Batch], Tensor]:
    """The random scalar `[batch]` whose gradients sample the curvature (`ModelOutput.sample`).

    Args:
        number: From 0: which sample. Consecutive ones are of other draws.
    """

    def value(model: torch.nn.Module, batch: Batch) -> Tensor:
        process, picture = unstacked(batch[PROCESS]), batch[SAMPLE]
        key, seed, draws = batch[KEY], batch[SEED], batch[DRAWS].shape[1]
        of_samples = streams(key, seed, _OF_SAMPLES)
        draw = (of_samples + number) % draws
        stream = streams(key, seed, draw)
        timestep = timesteps_of(stream, draw, draws, 0, process.timesteps - 1)
        noise = normal_noise(stream, picture.shape[1:])
        _, predicted = _difference(model, batch, process, timestep, noise)
        weights = normal_noise(of_samples + number, predicted.shape[1:])
        return math.sqrt(2 / predicted.shape[1]) * (weights * predicted).sum(1)

    return value


def _one(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Q = 1: the loss is −f, on average over what training draws."""
    return torch.ones_like(batch[KEY], dtype=torch.float32)


denoised = _mean_of(squared_error, -1)

DENOISING = ModelOutput(
    "denoising",
    "how well the picture is denoised at all timesteps",
    denoised,
    _one,
    curvature="constant",
    sample=sampled_prediction,
)
"""Minus the mean squared error."""
DISTANCE = ModelOutput(
    "distance",
    "how close predictions are to their targets",
    _mean_of(lambda difference, _: difference.norm(dim=1), -1),
    _one,
    curvature="constant",
)
"""Minus the mean Euclidean norm of the errors, in which noisy timesteps count for less."""
ABSOLUTE = ModelOutput(
    "absolute-error",
    "how small the absolute errors of predictions are",
    _mean_of(lambda difference, _: difference.abs().mean(1), -1),
    _one,
    curvature="constant",
)
SQUARED_NORM = ModelOutput(
    "squared-norm",
    "the size of what is predicted",
    _mean_of(lambda _, predicted: predicted.square().mean(1), 1),
    _one,
    curvature="constant",
)
"""The mean squared prediction, which D-TRAK attributes (Zheng et al. 2024, arXiv 2311.00500)."""
OUTPUTS = (DENOISING, DISTANCE, ABSOLUTE, SQUARED_NORM)

AT_TIMESTEPS = "timesteps:{}"
CHOICES = (
    OutputChoice(
        DENOISING.name,
        "all timesteps",
        DENOISING.title,
        "Which training pictures support this one?",
        raises="Training on these made models denoise it better",
        lowers="Training on these made models denoise it worse",
    ),
    OutputChoice(
        AT_TIMESTEPS,
        "some of the timesteps",
        "how well the picture is denoised at timesteps {}",
        "Which training pictures support timesteps {}?",
        raises="Training on these made models denoise it better at timesteps {}",
        lowers="Training on these made models denoise it worse at timesteps {}",
        takes="range",
    ),
)


def make_output(name: str, numbers: tuple[int, ...]) -> ModelOutput:
    """Minus the mean squared error between two timesteps, counted from 0 (`timesteps:{}`)."""
    first, last = numbers
    return ModelOutput(
        DENOISING.name,
        "how well the picture is denoised at some timesteps",
        lambda model, batch: -errors(model, batch, first, last).mean(1),
        _one,
        curvature="constant",
    )


# --- context, and what is kept --------------------------------------------------------------------


def context(
    model: torch.nn.Module,
    arrays: Mapping[str, np.ndarray],
    encoding: dict[str, Any],
    seed: int,
) -> dict[str, np.ndarray]:
    """`seed` [1], from which timesteps and noise of every example follow (`Task.context`)."""
    return {"seed": np.array([seed], np.int64)}


def record(model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
    """`errors` `[batch, draws]`, and the `output` that follows from them."""
    found = errors(model, batch)
    return {ERRORS: found, "output": -found.mean(1)}


def summarize(
    records: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """`predicted`, the mean squared error over all timesteps, and `output`, which is minus that."""
    found = np.asarray(records[ERRORS], np.float64).mean(axis=1)
    return {"predicted": found, "output": -found.astype(np.float32)}
