"""The process that turns pictures into noise, and numbers drawn for each example.

At timestep t of T, from 0, a picture x is x_t = s_t x + n_t ε, with ε of the standard normal
distribution, s_t² + n_t² = 1 and s_t falling to about 0. A model is trained to predict a target
from x_t, which is also a mixture of the two:

    ε-prediction   target = ε                  v-prediction   target = s_t ε − n_t x

or is the picture x itself.

Outputs need the same noise whenever an example is seen, in whatever company and on any device. It
is not stored: `normal_noise` computes it from a number of the example and the seed of the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.tasks.diffusion_options import Prediction, Schedule

_MOST_NOISE = 0.999
"""Largest β_t of the cosine schedule (Nichol & Dhariwal 2021, arXiv 2102.09672)."""
_OFFSET = 0.008
_LINEAR = 1e-4, 0.02
"""First and last β_t of the linear schedule for 1,000 timesteps (Ho et al. 2020, arXiv 2006.11239);
with fewer they are larger, so that the last picture is noise all the same."""


@dataclass(frozen=True)
class Process:
    """A noising process and what is predicted; the tables have one number for each timestep, `[T]`
    or, with one process an example, `[batch, T]`.

    Attributes:
        signal, noise: s_t and n_t.
        target_noise, target_picture: What ε and x are multiplied with in the target.
    """

    signal: Tensor
    noise: Tensor
    target_noise: Tensor
    target_picture: Tensor

    def stacked(self) -> Tensor:
        """All tables, `[4, T]`; `unstacked` is the inverse."""
        return torch.stack([self.signal, self.noise, self.target_noise, self.target_picture])

    @property
    def timesteps(self) -> int:
        return self.signal.shape[-1]

    def at(self, timestep: Tensor) -> Process:
        """The tables' numbers at timesteps `[batch]`, each `[batch, 1, 1, 1]`."""
        found = [_at(table, timestep) for table in self.stacked().unbind(0)]
        return Process(*found)

    def noisy(self, picture: Tensor, noise: Tensor) -> Tensor:
        """x_t, for a process `at` timesteps."""
        return self.signal * picture + self.noise * noise

    def target(self, picture: Tensor, noise: Tensor) -> Tensor:
        """What the model should predict, for a process `at` timesteps."""
        return self.target_noise * noise + self.target_picture * picture

    def parts(self, noisy: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """(picture, noise) that a prediction comes to, for a process `at` timesteps.

        They solve noisy = s x + n ε and predicted = c_ε ε + c_x x.
        """
        determinant = self.signal * self.target_noise - self.noise * self.target_picture
        picture = (self.target_noise * noisy - self.noise * predicted) / determinant
        noise = (self.signal * predicted - self.target_picture * noisy) / determinant
        return picture, noise


def _at(table: Tensor, timestep: Tensor) -> Tensor:
    rows = table.expand(len(timestep), -1) if table.ndim == 1 else table
    return rows.gather(1, timestep[:, None])[:, :, None, None]


def unstacked(tables: Tensor) -> Process:
    """The process of tables `[4, T]`, or of `[batch, 4, T]`."""
    return Process(*tables.unbind(-2))


def make_process(
    timesteps: int,
    schedule: Schedule,
    prediction: Prediction,
    betas: Sequence[float] | None = None,
) -> Process:
    """The process of a schedule with T timesteps, in float32.

    Args:
        betas: The first and the last β_t of a schedule other than cosine; None: those of `linear`.
    """
    if schedule == "cosine":
        ends = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        levels = ((ends + _OFFSET) / (1 + _OFFSET) * math.pi / 2).cos().square()
        growth = 1 - levels[1:] / levels[:-1]
    else:
        power = 2 if schedule == "scaled-linear" else 1
        first, last = betas or [beta * 1000 / timesteps for beta in _LINEAR]
        first, last = first ** (1 / power), last ** (1 / power)
        growth = torch.linspace(first, last, timesteps, dtype=torch.float64).pow(power)
    kept = (1 - growth.clamp(max=_MOST_NOISE)).cumprod(0)
    signal, noise = kept.sqrt().float(), (1 - kept).sqrt().float()
    one, zero = torch.ones_like(signal), torch.zeros_like(signal)
    if prediction == "epsilon":
        return Process(signal, noise, one, zero)
    if prediction == "picture":
        return Process(signal, noise, zero, one)
    return Process(signal, noise, signal, -noise)


# --- numbers drawn for each example ---------------------------------------------------------------

_GOLDEN, _FIRST, _SECOND = (
    value - 2**64 if value >= 2**63 else value
    for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
"""Constants of SplitMix64 (Steele et al. 2014), as signed numbers."""
_BITS = 24
"""Bits of a uniform number: as many as float32 holds exactly."""


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shift right, filling up with zeros."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(values: Tensor) -> Tensor:
    """SplitMix64: int64 whose bits look random, the same on every device. Overflows are meant."""
    values = values + _GOLDEN
    values = (values ^ _shifted(values, 30)) * _FIRST
    values = (values ^ _shifted(values, 27)) * _SECOND
    return values ^ _shifted(values, 31)


def _uniform(values: Tensor, bits: int) -> Tensor:
    """Numbers in (0, 1), float32, from the bits above the lowest `bits`."""
    chosen = _shifted(values, bits) & ((1 << _BITS) - 1)
    return (chosen.float() + 0.5) * 2.0**-_BITS


def streams(keys: Tensor, seed: Tensor, draw: int | Tensor) -> Tensor:
    """A number for each example's draw, int64 `[batch]`, from which others are computed.

    Args:
        keys: A number for each example, int64 `[batch]`.
        seed: int64 of one element.
        draw: Which of the example's draws, one for all or `[batch]`.
    """
    return _mixed(_mixed(_mixed(seed.reshape(1)) ^ keys) + draw)


def timesteps_of(stream: Tensor, draw: int | Tensor, draws: int, first: int, last: int) -> Tensor:
    """Timesteps `[batch]` from `first` to `last`, in the draw's part of `draws` equal parts."""
    uniform = _uniform(_mixed(stream), 0)
    places = (draw + uniform) / draws * (last + 1 - first)
    return first + places.long().clamp(0, last - first)


def normal_noise(stream: Tensor, shape: torch.Size) -> Tensor:
    """Standard normal numbers `[batch, *shape]`, by Box and Muller."""
    half = -(-shape.numel() // 2)
    places = torch.arange(1, 1 + half, device=stream.device)
    mixed = _mixed(stream[:, None] ^ _mixed(places))
    radius = (-2 * _uniform(mixed, 40).log()).sqrt()
    angle = 2 * math.pi * _uniform(mixed, 8)
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
    return both[:, : shape.numel()].reshape(len(stream), *shape)
