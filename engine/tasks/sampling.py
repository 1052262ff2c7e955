"""Make pictures with a model that denoises: DDPM and DDIM, each picture from a seed of its own.

Pictures of a class are clearer with guidance: predictions are moved away from what the model
predicts for other classes, as classifier-free guidance moves them away from what it predicts
without a class (Ho & Salimans 2022, arXiv 2207.12598). No model without a class is needed.

Both go from noise to a picture in steps from timestep t to an earlier one, s. What the model
predicts at t comes to a picture x and noise ε, and

    x_s = s_s x + √(n_s² − σ²) ε + σ z,    σ² = η² n_s²/n_t² (1 − s_t²/s_s²)

With η = 1 and all timesteps this is DDPM (Ho et al. 2020); with η = 0 nothing is drawn on the way,
and few timesteps are enough: DDIM (Song et al. 2021, arXiv 2010.02502). Noise follows from a
picture's seed, so models that are trained differently start from the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.tasks.noising import Process, normal_noise, streams

Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy pictures `[n, c, h, w]`, timesteps `[n]`) → predicted targets `[n, c, h, w]`."""

PredictOf = Callable[[Tensor, Tensor, Tensor], Tensor]
"""As `Predict`, of pictures of the classes `[n]`."""

_MOST_OTHERS = 10
"""Classes that a prediction is compared with: each takes as long as the prediction itself."""
_START = 0
"""The draw that a picture starts from; those of the steps count from 1."""


@dataclass(frozen=True)
class Trajectory:
    """Pictures and how they came about.

    Attributes:
        pictures: `[n, c, h, w]`.
        frames: The noisy picture before each step that is kept, `[n, frames, c, h, w]`.
        denoised: The picture that the model made out in it, of the same shape.
        timesteps: Of the frames, falling.
    """

    pictures: Tensor
    frames: Tensor
    denoised: Tensor
    timesteps: tuple[int, ...]


def spaced(timesteps: int, steps: int) -> list[int]:
    """So many timesteps, falling, from the noisiest to the least noisy.

    Args:
        timesteps: Of the process.
        steps: At most as many.
    """
    found = torch.linspace(timesteps - 1, 0, steps).round().long().tolist()
    return [int(step) for step in dict.fromkeys(found)]


def guided(predict: PredictOf, labels: Tensor, classes: int, guidance: float) -> Predict:
    """p + guidance · (p − mean of the predictions for other classes), with p for its own class.

    Args:
        labels: Class of each picture, int64 `[n]`.
        classes: How many there are. Of many, some that are evenly spread after a picture's own.
        guidance: 0: without.
    """
    count = min(_MOST_OTHERS, classes - 1)
    others = [1 + number * (classes - 1) // count for number in range(count)] if guidance else []

    def guide(noisy: Tensor, timestep: Tensor) -> Tensor:
        found = predict(noisy, timestep, labels)
        if not others:
            return found
        rest = [predict(noisy, timestep, (labels + far) % classes) for far in others]
        return found + guidance * (found - torch.stack(rest).mean(0))

    return guide


@torch.no_grad()
def sample(
    predict: Predict,
    process: Process,
    shape: Sequence[int],
    seeds: Tensor,
    steps: int,
    eta: float = 0.0,
    limit: float | None = 1.0,
    frames: int = 0,
) -> Trajectory:
    """Make a picture from each seed.

    Args:
        predict: A trained model in eval mode.
        process: That it was trained with, `[T]`, on the device of `seeds`.
        shape: Of a picture.
        seeds: int64 `[n]`.
        steps: How many; DDPM takes all timesteps.
        eta: 0 for DDIM, 1 for DDPM.
        limit: What the model makes out is cut to −limit…limit at every step; None: it is not.
        frames: How many steps of the way are kept, evenly spread.
    """
    zero = torch.zeros(1, dtype=torch.int64, device=seeds.device)
    size = torch.Size(shape)

    def noise(draw: int) -> Tensor:
        return normal_noise(streams(seeds, zero, draw), size)

    chosen = spaced(process.timesteps, steps)
    kept = {int(one) for one in torch.linspace(0, len(chosen) - 1, frames).round()}
    x = noise(_START)
    seen: list[tuple[int, Tensor, Tensor]] = []
    for number, step in enumerate(chosen):
        here = process.at(torch.full_like(seeds, step))
        picture, found = here.parts(x, predict(x, torch.full_like(seeds, step)))
        if limit is not None:
            picture = picture.clamp(-limit, limit)
            found = (x - here.signal * picture) / here.noise
        if number in kept:
            seen.append((step, x, picture))
        if number + 1 == len(chosen):
            x = picture
            break
        then = process.at(torch.full_like(seeds, chosen[number + 1]))
        ratio = 1 - (here.signal / then.signal).square()
        variance = eta**2 * (then.noise / here.noise).square() * ratio.clamp(min=0)
        x = then.signal * picture + (then.noise.square() - variance).clamp(min=0).sqrt() * found
        if eta:
            x = x + variance.sqrt() * noise(1 + number)
    empty = x.new_zeros(len(seeds), 0, *shape)
    return Trajectory(
        x,
        torch.stack([one for _, one, _ in seen], 1) if seen else empty,
        torch.stack([one for *_, one in seen], 1) if seen else empty,
        tuple(step for step, *_ in seen),
    )
