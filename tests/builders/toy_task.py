"""A task that Dataloupe does not have: a number predicted from a row of numbers.

It has no classes, and its predictions are neither right nor wrong. A study of it shows whether
anything outside `engine/tasks/` relies on classification.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict

from engine.models.calling import call
from engine.store.errors import DataError
from engine.tasks import Accepted, Encoded, ModelOutput, Remarks, Task

WEIGHTS = (2.0, -1.0, 0.5, 0.0)
NAME = "python:tests.builders.toy_task:small_tables"

SPEC = f"""\
name = "Small tables"
seed = 5

[data]
source = "tables"
input = "measurements"
label = "price"

[task]
name = "{NAME}"

[algorithms.wide]
architecture = "mlp"
architecture_options = {{ widths = [8] }}
epochs = 6
learning_rate = 0.02
batch_size = 32
checkpoints = 2

[algorithms.narrow]
architecture = "mlp"
architecture_options = {{ widths = [3] }}
epochs = 6
learning_rate = 0.02
batch_size = 32
checkpoints = 2

[search]
top_k = 10

[subset_runs]
masks = 15
"""


def write_tables(folder: Path, n_train: int, n_test: int) -> None:
    """CSV files of packed measurements and prices, some of them with a price of their own."""
    folder.mkdir(parents=True)
    for name, rows, seed in (("train", n_train, 0), ("test", n_test, 1)):
        _table(rows, seed).to_csv(folder / f"{name}.csv", index=False)


def _table(rows: int, seed: int) -> pd.DataFrame:
    rng = random.Random(seed)
    found = []
    for _ in range(rows):
        numbers = [rng.gauss(0, 1) for _ in WEIGHTS]
        price = sum(w * x for w, x in zip(WEIGHTS, numbers, strict=True)) + rng.gauss(0, 0.3)
        found.append((" ".join(f"{number:.3f}" for number in numbers), round(price, 3)))
    return pd.DataFrame(found, columns=["measurements", "price"])


class Options(BaseModel):
    """`[task]` of a study of small tables: nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _numbers(text: Any, id_: str) -> list[float]:
    try:
        found = [float(part) for part in str(text).split()]
    except ValueError:
        found = []
    if not found:
        raise DataError(f"example {id_!r}: numbers were expected and {str(text)[:40]!r} was found.")
    return found


def plan_encoding(rows: Any, options: Options, classes: Sequence[str]) -> dict[str, Any]:
    """`shape` as the architecture `mlp` takes it."""
    return {"shape": [1, 1, len(_numbers(rows[0]["input"], rows[0]["id"]))]}


def encode(rows: Sequence[dict[str, Any]], options: Options, encoding: dict[str, Any]) -> Encoded:
    """float32 `input` [rows, 1, 1, columns] and float32 `label` [rows]."""
    inputs = np.array([_numbers(row["input"], row["id"]) for row in rows], np.float32)
    labels = np.array([row["label"] for row in rows], np.float32)
    texts = [" · ".join(str(row["input"]).split()) for row in rows]
    return Encoded({"input": inputs[:, None, None], "label": labels}, {"text": texts})


def accept(content: bytes | str, options: Options, encoding: dict[str, Any]) -> Accepted:
    """Any text of as many numbers."""
    text = content if isinstance(content, str) else content.decode("utf-8", errors="replace")
    if len(_numbers(text, "yours")) != encoding["shape"][2]:
        raise DataError(f"Write {encoding['shape'][2]} numbers, separated by spaces.")
    return Accepted({"input": text, "label": 0.0, "id": "yours"}, options, [])


def remarks(
    rows: Any,
    encoding: dict[str, Any],
    arrays: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
) -> Remarks:
    return Remarks([], [])


def _predicted(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return call(model, batch)[:, 0]  # type: ignore[no-any-return]


def _residual(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return batch["label"] - _predicted(model, batch)


def small_tables() -> Task:
    """The task, as a study names it."""
    return Task(
        name="small-tables",
        views=("text",),
        labels="number",
        outcomes=None,
        options=Options,
        plan_encoding=plan_encoding,
        encode=encode,
        accept=accept,
        remarks=remarks,
        prepare=lambda batch, encoding: batch,
        augment=lambda batch, names, generator: batch,
        loss=lambda model, batch, smoothing: 0.5 * _residual(model, batch) ** 2,
        width=lambda classes: 1,
        record=lambda model, batch: {"predicted": _predicted(model, batch)},
        summarize=lambda records, arrays, classes: {
            "predicted": records["predicted"].astype(np.float32)
        },
        outputs=(
            ModelOutput("prediction", "the predicted number", _predicted, _residual, "constant"),
        ),
    )
