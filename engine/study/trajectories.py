"""How the test examples came about that the study's own models made, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engine import store
from engine.store import layout
from engine.store.records import OutputChoice
from engine.study.output_names import NamedOutput, output_choices
from engine.study.reader import StudyReader

PARTS = 10
"""Of all timesteps, where there are no frames."""


@dataclass(frozen=True)
class Trajectory:
    """Some steps of the way of one example, from noise on.

    Attributes:
        frames: What the model saw, uint8 `[frames, channels, height, width]`.
        denoised: What it made out in it, of the same shape.
        timesteps: Of each frame, from 1, falling.
    """

    frames: np.ndarray
    denoised: np.ndarray
    timesteps: tuple[int, ...]


@dataclass(frozen=True)
class Making:
    """What the made test examples were made from.

    Attributes:
        seeds: int64 `[n]`, the same for every model.
        steps: From noise to an example.
        guidance: See `engine.tasks.sampling.guided`.
    """

    seeds: np.ndarray
    steps: int
    guidance: float


def read_making(study: StudyReader) -> Making | None:
    """What the study's models made its test examples from; None if they made none."""
    path = layout.trajectories_file(study.root)
    if not path.exists():
        return None
    about = store.read_metadata(path)
    seeds = about["seed"] + np.arange(about["count"])
    return Making(seeds, about["steps"], about.get("guidance", 0.0))


def read_trajectory(study: StudyReader, row: int) -> Trajectory | None:
    """The way of a test example; None if it was not made by the study's models."""
    path = layout.trajectories_file(study.root)
    if not path.exists():
        return None
    found = store.read_tensors(path)
    if row >= len(found["frames"]):  # those that were made come first
        return None
    timesteps = tuple(int(step) for step in found["timesteps"])
    return Trajectory(found["frames"][row], found["denoised"][row], timesteps)


def ranges_of(timesteps: Sequence[int], total: int) -> list[tuple[int, int]]:
    """The first and the last timestep that each frame stands for: all that are nearest to it.

    Args:
        timesteps: Of the frames, from 1, falling.
        total: How many there are.
    """
    borders = [total, *((a + b) // 2 for a, b in pairwise(timesteps)), 0]
    return [(low + 1, high) for high, low in pairwise(borders)]


def range_choice(study: StudyReader) -> OutputChoice | None:
    """The outputs of a range of timesteps; None where outputs have no timesteps."""
    return next((choice for choice in output_choices(study) if choice.takes == "range"), None)


def ranges_over(study: StudyReader, row: int) -> list[NamedOutput]:
    """Outputs of ranges that share out all timesteps, the noisiest first; none where outputs have
    no timesteps. Of a made example they are those of its frames."""
    choice, total = range_choice(study), study.dataset.encoding.get("timesteps")
    if choice is None or total is None:
        return []
    way = read_trajectory(study, row)
    steps = np.linspace(total, 1, min(PARTS, total)).round().astype(int).tolist()
    ranges = ranges_of(steps if way is None else way.timesteps, total)
    return [NamedOutput(choice, (f"{first}-{last}",)) for first, last in ranges]
