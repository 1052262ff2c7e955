"""Tasks: what is attributed. A task is one file in this folder and one line in `TASKS`.

A task defines how rows become tensors, the training loss, and the scalar of the model (the *model
output* f) that is attributed to the training data. Everything else in Dataloupe (training,
gradients, scores, search, dashboard) uses this interface and knows nothing about modalities.

Importing this module does not import torch; `load_task` does, through the task's own file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel

from engine.store.errors import SpecError
from engine.store.spec import AlgorithmSpec, TaskSpec

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    Batch = dict[str, torch.Tensor]
    """Tensors by name; the first dimension of each is the batch."""

TASKS = {
    "image-classification": "engine.tasks.image_classification",
    "text-classification": "engine.tasks.text_classification",
}
"""Name in study.toml → module. The module holds one `Task` named `TASK`."""

SETTLED = {"text-classification": "engine.tasks.text_options"}
"""Tasks whose options depend on the study's algorithms or on files outside of it → the module with
their functions `settle` and `outside`, which imports no torch."""


@dataclass(frozen=True)
class Encoded:
    """An encoded chunk of rows.

    Attributes:
        arrays: Name → array `[rows, ...]` of what the model gets (unnormalized pixels, token ids,
            labels); dtype and row shape are the same for the whole dataset.
        columns: Name → list of `rows` values to show and filter by (`text`, `caption`, ...).
        thumbnails: One picture per row, or None if the task has no pictures.
    """

    arrays: dict[str, np.ndarray]
    columns: dict[str, list[Any]]
    thumbnails: list[Image] | None = None


@dataclass(frozen=True)
class Remarks:
    """What a person should know of an encoded dataset, one sentence each.

    Attributes:
        notes: What was measured or chosen.
        warnings: What may make results wrong.
    """

    notes: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class Accepted:
    """An example from outside the dataset, ready for `encode`.

    Attributes:
        row: With `input`, `label` (0, because it has none) and `id`.
        options: The study's options, relaxed where they would refuse an example that can be
            converted.
        notes: What was done to the example, one sentence each, for the person who gave it.
    """

    row: dict[str, Any]
    options: Any
    notes: list[str]


@dataclass(frozen=True)
class Task:
    """The functions of a task. None of them keeps state.

    Attributes:
        name: As in study.toml.
        display: Whether the dashboard shows an example's picture or its text.
        options: Pydantic model of the task's own keys in `[task]`.
        plan_encoding: (training rows, options, class names) → description of the encoding as JSON
            (picture shape, mean and std, vocabulary, ...). It is determined on the training split
            only and kept in the store. The rows are a Hugging Face `Dataset` with the columns
            `input`, `label` and `id`.
        encode: (rows of one chunk as dicts, options, encoding) → `Encoded`. Raises `DataError`
            with the row's id for anything it cannot use.
        accept: (a file's bytes or a text, options, encoding) → `Accepted`. The input is not
            trusted. Raises `DataError` if it is not an example.
        remarks: (test rows, encoding, split → its shards of arrays) → `Remarks` on both splits.
        input_shape: encoding → shape of one model input, without the batch dimension.
        prepare: (raw batch, encoding) → batch as the model takes it (float, normalized).
        augment: (prepared batch, names of augmentations, generator) → batch of the same shapes.
        loss: (model, prepared batch, label smoothing) → `[batch]` training losses.
        predict: (model, prepared batch) → `[batch, classes]` scores (logits).
        model_output: (model, prepared batch) → `[batch]` f, differentiable. Row i must depend
            on example i alone.
        out_to_loss: `[batch]` model outputs → `[batch]` Q = |dloss/df|, so that training examples
            with a positive score are supporting.
    """

    name: str
    display: Literal["image", "text"]
    options: type[BaseModel]
    plan_encoding: Callable[[Any, Any, Sequence[str]], dict[str, Any]]
    encode: Callable[[Sequence[dict[str, Any]], Any, dict[str, Any]], Encoded]
    accept: Callable[[bytes | str, Any, dict[str, Any]], Accepted]
    remarks: Callable[
        [Any, dict[str, Any], Mapping[str, Sequence[Mapping[str, np.ndarray]]]], Remarks
    ]
    input_shape: Callable[[dict[str, Any]], tuple[int, ...]]
    prepare: Callable[[Batch, dict[str, Any]], Batch]
    augment: Callable[[Batch, Sequence[str], torch.Generator], Batch]
    loss: Callable[[torch.nn.Module, Batch, float], torch.Tensor]
    predict: Callable[[torch.nn.Module, Batch], torch.Tensor]
    model_output: Callable[[torch.nn.Module, Batch], torch.Tensor]
    out_to_loss: Callable[[torch.Tensor], torch.Tensor]


def settle(name: str, options: Any, algorithms: Mapping[str, AlgorithmSpec], study: Path) -> Any:
    """A task's options with what depends on the algorithms and on files outside of the study.

    Raises:
        SpecError: A file is missing or cannot be used.
    """
    if name not in SETTLED:
        return options
    return importlib.import_module(SETTLED[name]).settle(options, algorithms, study)


def outside(
    task: TaskSpec,
    algorithms: Mapping[str, AlgorithmSpec],
    study: Path,
    known: Mapping[str, Any] | None,
) -> list[str]:
    """What the encoding depends on beside `[data]` and `[task]`, for fingerprints; usually empty.

    Args:
        known: The encoding of the data as built; None before.

    Raises:
        SpecError: A file is missing or cannot be used.
    """
    if task.name not in SETTLED:
        return []
    module = importlib.import_module(SETTLED[task.name])
    found: list[str] = module.outside(task.own_keys(), algorithms, study, known)
    return found


def load_task(name: str) -> Task:
    """Import and return a task by its name in `TASKS`.

    Raises:
        SpecError: No such task.
    """
    if name not in TASKS:
        raise SpecError(f"task {name!r} is not known; the tasks are {', '.join(sorted(TASKS))}.")
    task = importlib.import_module(TASKS[name]).TASK
    assert isinstance(task, Task)
    return task
