"""Columns of examples as pages filter, sort and color by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from engine.store.quantities import MEASURES
from engine.store.records import Dataset, LabelKind


@dataclass(frozen=True)
class Effect:
    """What a training example does to a model output, in three forms of a verb."""

    present: str
    past: str
    participle: str


HELP, HURT = Effect("helps", "helped", "helping"), Effect("hurts", "hurt", "hurting")
RAISE, LOWER = Effect("raises", "raised", "raising"), Effect("lowers", "lowered", "lowering")
SEPARATOR = ", "
"""Between the classes of an example that has several, as text."""


def effects_of(classes: Sequence[str]) -> tuple[Effect, Effect]:
    """What examples with scores above and below 0 do to an output.

    Outputs are high where predictions are good only if they are about classes.
    """
    return (HELP, HURT) if classes else (RAISE, LOWER)


def output_name(dataset: Dataset) -> str:
    """Name of the model output for people, such as `margin`."""
    return dataset.output.replace("_", " ").replace("-", " ")


def output_noun(dataset: Dataset) -> str:
    """What the model output is, after a word such as *lower*: `margin of the true label`; its name
    where its title is a clause, such as `how well picture and caption fit`."""
    noun = dataset.output_title.removeprefix("the ")
    return output_name(dataset) if noun == dataset.output_title else noun


def numbers_of(table: pd.DataFrame, labels: LabelKind) -> dict[str, np.ndarray]:
    """Columns of numbers: `label` where labels are numbers, `error`, `output` and `MEASURES`."""
    found = {}
    if labels == "number":
        found["label"] = pd.to_numeric(table["label"]).to_numpy(np.float64)
    return found | {
        name: table[name].to_numpy(np.float64)
        for name in ("error", "output", *MEASURES)
        if name in table
    }


def memberships(names: pd.Series, classes: Sequence[str]) -> np.ndarray:
    """Which of the classes each example has, bool `[n, classes]`, from texts such as `a, b`."""
    texts = (SEPARATOR + names.astype(str) + SEPARATOR).to_numpy(str)
    found = [np.char.find(texts, f"{SEPARATOR}{name}{SEPARATOR}") >= 0 for name in classes]
    return np.stack(found, axis=1) if found else np.empty((len(names), 0), bool)
