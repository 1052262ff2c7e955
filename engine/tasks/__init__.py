"""What is attributed. A task is one file beside this one and one line in `TASKS`.

A task says how rows become tensors, what a model's training loss is, and which scalar of the model
(the *model output* f) is traced back to the training data. Everything else in Dataloupe (training,
gradients, scores, search, dashboard) works through this seam and knows no modality.

Importing this module does not import torch; `load_task` does, through the task's own file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel

from engine.store.errors import SpecError

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


@dataclass(frozen=True)
class Encoded:
    """A chunk of rows, encoded.

    Attributes:
        arrays: Name → array `[rows, ...]` of what the model is fed (unnormalised pixels, token
            ids, labels); one dtype and row shape for the whole dataset.
        columns: Name → list of `rows` values to show and filter by (`text`, `caption`, ...).
        thumbnails: One picture a row, or None where the task has no pictures to show.
    """

    arrays: dict[str, np.ndarray]
    columns: dict[str, list[Any]]
    thumbnails: list[Image] | None = None


@dataclass(frozen=True)
class Accepted:
    """An example from outside the dataset, made ready for `encode`.

    Attributes:
        row: With `input`, `label` (0, since it has none) and `id`.
        options: The study's own, loosened where they would refuse what can be made to fit.
        notes: What had to be done to it, one sentence each, for the person who gave it.
    """

    row: dict[str, Any]
    options: Any
    notes: list[str]


@dataclass(frozen=True)
class Task:
    """Functions that make up a task. None of them keeps state.

    Attributes:
        name: As in study.toml.
        display: How the dashboard shows an example: its picture or its text.
        options: Pydantic model of the task's own keys in `[task]`.
        plan_encoding: (training rows, options, class names) → JSON-able description of the
            encoding (picture shape, mean and std, vocabulary, ...), chosen on the training
            split only and kept in the store. `rows` is a Hugging Face `Dataset` whose columns
            are already named `input`, `label`, `id` (the task's `columns` names).
        encode: (rows of one chunk as dicts, options, encoding) → `Encoded`. Raises `DataError`
            naming the row for anything it cannot use.
        accept: (a file's bytes or a text, options, encoding) → `Accepted`. What is given comes
            from a stranger. Raises `DataError` for what is no example at all.
        input_shape: encoding → shape of one model input, without the batch.
        prepare: (raw batch, encoding) → batch as the model takes it (float, normalised).
        augment: (prepared batch, names of augmentations, generator) → batch; same shapes.
        loss: (model, prepared batch, label smoothing) → `[batch]` training losses.
        predict: (model, prepared batch) → `[batch, classes]` scores (logits).
        model_output: (model, prepared batch) → `[batch]` f, differentiable. Row i must depend
            on example i alone.
        out_to_loss: `[batch]` model outputs → `[batch]` Q = |dloss/df|, so that a positive score
            supports.
    """

    name: str
    display: Literal["image", "text"]
    options: type[BaseModel]
    plan_encoding: Callable[[Any, Any, Sequence[str]], dict[str, Any]]
    encode: Callable[[Sequence[dict[str, Any]], Any, dict[str, Any]], Encoded]
    accept: Callable[[bytes | str, Any, dict[str, Any]], Accepted]
    input_shape: Callable[[dict[str, Any]], tuple[int, ...]]
    prepare: Callable[[Batch, dict[str, Any]], Batch]
    augment: Callable[[Batch, Sequence[str], torch.Generator], Batch]
    loss: Callable[[torch.nn.Module, Batch, float], torch.Tensor]
    predict: Callable[[torch.nn.Module, Batch], torch.Tensor]
    model_output: Callable[[torch.nn.Module, Batch], torch.Tensor]
    out_to_loss: Callable[[torch.Tensor], torch.Tensor]


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
