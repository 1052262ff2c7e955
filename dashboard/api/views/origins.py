"""Beyond the strongest examples: groups that support a prediction, and whether it is a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from dashboard.api.examples import Example, named
from dashboard.api.numbers import Number, is_a, number
from dashboard.read.group_sums import stored_sums
from dashboard.read.nearest import nearest
from dashboard.read.studies import examples
from engine.store.quantities import DISTANCE, SHARE
from engine.study.reader import StudyReader
from engine.study.trajectories import ranges_over, read_trajectory


@dataclass(frozen=True, kw_only=True)
class GroupShare:
    """How much of the influence comes from a group of training examples.

    Attributes:
        column, group: A column of the training examples, and one of its values.
        support, opposition: Shares of all influence of that sign.
        examples: Share of the training examples.
    """

    column: str
    group: str
    support: Annotated[Number, is_a(SHARE)]
    opposition: Annotated[Number, is_a(SHARE)]
    examples: Annotated[Number, is_a(SHARE)]


@dataclass(frozen=True, kw_only=True)
class Near(Example):
    """A training example whose values are near to those of the explained one."""

    distance: Annotated[Number, is_a(DISTANCE)]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A step on the way from noise to a made example.

    Attributes:
        timestep: Of the step, from 1, the least noisy.
        output: Names the output of the timesteps around it.
    """

    timestep: int
    output: str


@dataclass(frozen=True, kw_only=True)
class Made:
    """How an example came about that the study's models made.

    Attributes:
        frames: From noise on.
        nearest: The training examples nearest in their values; empty where they are not compared.
        memorized: Whether the first of them is so near that it looks repeated; null where they are
            not compared.
    """

    frames: list[Frame]
    nearest: list[Near]
    memorized: bool | None


def groups_of(study: StudyReader, row: int, algorithm: str, method: str) -> list[GroupShare]:
    """The shares of all groups, column by column, those with most support first."""
    return [
        GroupShare(
            column=column,
            group=name,
            support=number(SHARE, sums.support[place], method=method),
            opposition=number(SHARE, sums.oppose[place], method=method),
            examples=number(SHARE, sums.examples[place]),
        )
        for column, sums in stored_sums(study, row, algorithm, method).items()
        for place, name in enumerate(sums.names)
    ]


def made_of(study: StudyReader, row: int, k: int) -> Made | None:
    """How a test example came about; None if it was not made by the study's models."""
    way = read_trajectory(study, row)
    if way is None:
        return None
    found, training = nearest(study, row), examples(study, "train")
    rows = [] if found is None else found.rows[:k].tolist()
    records = training.table.iloc[rows].to_dict("records")
    outputs = ranges_over(study, row)
    return Made(
        frames=[
            Frame(timestep=step, output=output.name)
            for step, output in zip(way.timesteps, outputs, strict=True)
        ],
        nearest=[]
        if found is None
        else [
            Near(**named(study, "train", record, one), distance=number(DISTANCE, distance))
            for record, one, distance in zip(
                records, rows, found.distances[:k].tolist(), strict=True
            )
        ],
        memorized=None if found is None else found.memorized,
    )
