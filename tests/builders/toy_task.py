"""A task of the user's own: regression on rows of a small table.

It has neither classes nor right and wrong, and its outputs need a context. A study of it goes
through everything without a change of the code, which shows that nothing else knows of modalities.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import BaseModel, ConfigDict

from engine import Study
from engine.store.errors import DataError
from engine.store.trust import Code, trust
from engine.tasks import Accepted, Encoded, Given, ModelOutput, Remarks, Task

FEATURES = 4
DRAWS = 3
"""The model output is the mean prediction over so many disturbed copies of an example."""
Batch = dict[str, torch.Tensor]


class Options(BaseModel):
    """`[task]` of the toy study."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    disturbance: float = 0.05


def plan_encoding(rows: Any, options: Options, classes: Sequence[str]) -> dict[str, Any]:
    """The length of a row, and how far its numbers are disturbed."""
    return {"shape": [len(rows[0]["input"])], "disturbance": options.disturbance}


def encode(rows: Sequence[dict[str, Any]], options: Options, encoding: dict[str, Any]) -> Encoded:
    """float32 `input` [rows, features] and `label` [rows]; the numbers as a text."""
    for row in rows:
        if len(row["input"]) != encoding["shape"][0]:
            raise DataError(f"example {row['id']!r}: {encoding['shape'][0]} numbers are needed.")
    texts = [" ".join(f"{value:+.2f}" for value in row["input"]) for row in rows]
    arrays = {
        "input": np.array([row["input"] for row in rows], np.float32),
        "label": np.array([row["label"] for row in rows], np.float32),
    }
    return Encoded(arrays, {"text": texts})


def accept(given: Given, options: Options, encoding: dict[str, Any]) -> Accepted:
    """Numbers with spaces between them."""
    text = given["text"]
    assert isinstance(text, str)
    try:
        values = [float(part) for part in text.split()]
    except ValueError as error:
        raise DataError("Write numbers with spaces between them.") from error
    return Accepted({"input": values, "label": 0.0, "id": "yours"}, options, [])


def remarks(rows: Any, encoding: dict[str, Any], arrays: Any) -> Remarks:
    """Nothing to say."""
    return Remarks([], [])


def prepare(batch: Batch, encoding: dict[str, Any]) -> Batch:
    """The batch as it is."""
    return batch


def augment(batch: Batch, names: Sequence[str], generator: torch.Generator) -> Batch:
    """There are no augmentations."""
    assert not names
    return batch


def _predict(model: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model(inputs).squeeze(1)
    return found


def loss(model: torch.nn.Module, batch: Batch, label_smoothing: float) -> torch.Tensor:
    """Half the squared errors `[batch]`."""
    return (_predict(model, batch["input"]) - batch["label"]).square() / 2


def record(model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """`prediction` [batch, 1]."""
    return {"prediction": _predict(model, batch["input"]).unsqueeze(1)}


def summarize(
    records: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """`predicted` and `error`."""
    predicted = records["prediction"][:, 0]
    return {"predicted": predicted, "error": predicted - np.asarray(arrays["label"][:])}


def context(
    model: torch.nn.Module, arrays: Mapping[str, np.ndarray], encoding: dict[str, Any], seed: int
) -> dict[str, np.ndarray]:
    """`shift` [DRAWS, features]: what is added to an example's numbers."""
    drawn = np.random.default_rng(seed).normal(size=(DRAWS, encoding["shape"][0]))
    return {"shift": (encoding["disturbance"] * drawn).astype(np.float32)}


def smoothed(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean prediction over disturbed copies of each example `[batch]`."""
    copies = [_predict(model, batch["input"] + shift) for shift in batch["context_shift"]]
    return torch.stack(copies).mean(0)


def residual(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Q = −dloss/df = label − prediction `[batch]`."""
    return batch["label"] - smoothed(model, batch)


PREDICTION = ModelOutput("prediction", "the predicted number", smoothed, residual, "constant")


def task() -> Task:
    """The task, for `[task] name = "python:tests.builders.toy_task:task"`."""
    return Task(
        name="table-regression",
        views=("text",),
        labels="number",
        outcomes=None,
        options=Options,
        plan_encoding=plan_encoding,
        encode=encode,
        accept=accept,
        remarks=remarks,
        prepare=prepare,
        augment=augment,
        loss=loss,
        width=lambda classes: 1,
        record=record,
        summarize=summarize,
        outputs=(PREDICTION,),
        context=context,
    )


def regressor(encoding: dict[str, Any], n_classes: int) -> torch.nn.Module:
    """A small network with one output."""
    return torch.nn.Sequential(
        torch.nn.Linear(encoding["shape"][0], 8), torch.nn.Tanh(), torch.nn.Linear(8, n_classes)
    )


def line(encoding: dict[str, Any], n_classes: int) -> torch.nn.Module:
    """A linear model."""
    return torch.nn.Linear(encoding["shape"][0], n_classes)


SPEC = """\
name = "Rows of a table"
seed = 5

[data]
source = "rows"
input = "features"
label = "target"

[task]
name = "python:tests.builders.toy_task:task"

[algorithms.net]
architecture = "python:tests.builders.toy_task:regressor"
epochs = 30
batch_size = 32
learning_rate = 0.1
checkpoints = 2

[algorithms.line]
architecture = "python:tests.builders.toy_task:line"
epochs = 30
batch_size = 32
learning_rate = 0.1
checkpoints = 2

[search]
top_k = 20

[subset_runs]
masks = 15
"""
CODE = ("task", "regressor", "line")


def write_toy_study(root: Path) -> Study:
    """A study of 120 + 40 rows, not built: the label is a planted linear function and noise."""
    Study.create(root, SPEC)
    (root / "rows").mkdir()
    generator = np.random.default_rng(0)
    for split, rows in (("train", 120), ("test", 40)):
        features = generator.normal(size=(rows, FEATURES)).astype(np.float32)
        target = features @ np.array([1.0, -2.0, 0.5, 0.0]) + generator.normal(size=rows) * 0.3
        columns = {
            "features": pa.array(features.tolist(), pa.list_(pa.float32())),
            "target": pa.array(target),
            "site": pa.array([f"site {row % 3}" for row in range(rows)]),
        }
        pq.write_table(pa.table(columns), root / "rows" / f"{split}.parquet")
    return trusted(root)


def own_toy_study(study: Study, folder: Path) -> Study:
    """A copy of a toy study that a test may write into, and whose code may run."""
    return trusted(shutil.copytree(study.root, folder))


def trusted(root: Path) -> Study:
    """The toy study in a folder, whose code may run."""
    trust(root, [Code.of(f"python:tests.builders.toy_task:{name}") for name in CODE])
    return Study.open(root)
