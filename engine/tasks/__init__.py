"""Tasks: what is attributed. A task is one file in this folder and one line in `TASKS`.

A task defines how rows become tensors, the training loss, what is kept of each prediction, and the
scalars of the model (the *model outputs* f) that can be attributed to the training data. Everything
else in Dataloupe (training, gradients, scores, search, dashboard) uses this interface and knows
nothing about modalities.

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
from engine.store.records import LabelKind, OutputChoice, View
from engine.store.spec import AlgorithmSpec, TaskSpec

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from engine.data.fitting import Fit

    Batch = dict[str, torch.Tensor]
    """Tensors by name; the first dimension of each is the batch."""

TASKS = {
    "diffusion": "engine.tasks.diffusion",
    "image-classification": "engine.tasks.image_classification",
    "image-multilabel": "engine.tasks.image_multilabel",
    "image-regression": "engine.tasks.image_regression",
    "image-text": "engine.tasks.image_text",
    "text-classification": "engine.tasks.text_classification",
    "text-multilabel": "engine.tasks.text_multilabel",
    "text-regression": "engine.tasks.text_regression",
    "text-to-text": "engine.tasks.text_to_text",
}
"""Name in study.toml → module. The module holds one `Task` named `TASK`."""

Given = Mapping[View, bytes | str]
"""What a person gives of an example: a picture's file, a text, or both."""

SETTLED = {
    **dict.fromkeys(
        ("text-classification", "text-regression", "text-multilabel"), "engine.tasks.text_options"
    ),
    "image-text": "engine.tasks.pair_options",
    "text-to-text": "engine.tasks.sequence_options",
    "diffusion": "engine.tasks.diffusion_options",
}
"""Tasks whose options depend on the study's algorithms or on files outside of it → the module with
their functions `settle`, `outside` and `computed`, which imports no torch."""

NOISY = ("diffusion",)
"""Tasks whose context is noise alone. All subset runs are judged with the noise of the study's
first seed: with their own, outputs would differ by noise as much as by data."""


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
class Retrieval:
    """How an example from outside gets the part that it lacks: models find it among the test
    examples.

    Attributes:
        unlike: (arrays of an example with the part of another one meanwhile) → the same arrays,
            of which nothing tells that a test example is like it.
        fits: (mean of the checkpoints' records of that example, the part that is looked for) → how
            well the part of each of the first test examples fits, `[candidates]`.
        outputs: The part that is looked for → name of the output that tells why it is found.
    """

    unlike: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
    fits: Callable[[Mapping[str, np.ndarray], View], np.ndarray]
    outputs: Mapping[View, str]


@dataclass(frozen=True)
class Generated:
    """Pictures that a model made, and how they came about.

    Attributes:
        pictures: uint8 `[n, channels, height, width]`.
        arrays: Name → array `[n, ...]`: them, as examples that other models see.
        columns: Name → list of `n` values of columns of the data that the model was told.
        frames: What the model saw before some of its steps, uint8 `[n, frames, c, h, w]`.
        denoised: The picture that it made out there, of the same shape.
        timesteps: Of the frames, falling.
    """

    pictures: np.ndarray
    arrays: dict[str, np.ndarray]
    columns: dict[str, list[Any]]
    frames: np.ndarray
    denoised: np.ndarray
    timesteps: list[int]


@dataclass(frozen=True)
class ModelOutput:
    """A scalar of the model that can be attributed.

    Attributes:
        name: One word, such as `margin`: the column of tables and files that holds it.
        title: What the scores answer, as part of a sentence: `the margin of the true label`.
        value: (model, prepared batch) → `[batch]` f, differentiable. Row i must depend on example
            i and the context alone.
        weight: (model, prepared batch) → `[batch]` Q = −dloss/df, so that training examples with a
            positive score are supporting.
        curvature: `from-weight` if |Q| approximates the second derivative of the loss by f, as for
            the cross entropy; `constant` for losses such as the squared error.
        sample: number → (model, prepared batch) → `[batch]`, a random scalar of what is predicted:
            over numbers, the mean outer product of its gradient with itself is the Gauss-Newton
            matrix of the example's loss. For losses of many predictions, where neither Q nor 1
            stands for the curvature. None: `curvature` is all there is.
        from_record: (mean of the checkpoints' records) → `[n]` f of the mean prediction. None: the
            mean of f over the checkpoints.
        trained: (model, prepared batch) → `[batch]`: a training example stands with the gradient φ
            of this, where the loss is no function of f. Q φ must be −∇loss. None: it is `value`.
    """

    name: str
    title: str
    value: Callable[[torch.nn.Module, Batch], torch.Tensor]
    weight: Callable[[torch.nn.Module, Batch], torch.Tensor]
    curvature: Literal["from-weight", "constant"] = "from-weight"
    from_record: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None
    trained: Callable[[torch.nn.Module, Batch], torch.Tensor] | None = None
    sample: Callable[[int], Callable[[torch.nn.Module, Batch], torch.Tensor]] | None = None


@dataclass(frozen=True)
class Task:
    """The functions of a task. None of them keeps state.

    Attributes:
        name: As in study.toml.
        views: What shows an example: its picture, its text (the column `text`), or both.
        labels: Kind of the source's labels: `class`, one name of several; `classes`, any number of
            them; `number`; `none`.
        outcomes: Name in `engine.tasks.outcomes.OUTCOMES` of what a right prediction is; None if
            the task has no right and wrong.
        options: Pydantic model of the task's own keys in `[task]`.
        plan_encoding: (training rows, options, class names) → description of the encoding as JSON
            (picture shape, mean and std, vocabulary, ...). It is determined on the training split
            only and kept in the store. The rows are a Hugging Face `Dataset` with the columns
            `input`, `label` (unless `labels` is `none`) and `id`.
        encode: (rows of one chunk as dicts, options, encoding) → `Encoded`. Raises `DataError`
            with the row's id for anything it cannot use. If the rows have not all parts, which
            only `accept` gives, there are arrays of these parts alone.
        accept: (what a person gives, options, encoding) → `Accepted`. The input is not trusted.
            Raises `DataError` if it is not an example.
        remarks: (test rows, encoding, split → its shards of arrays) → `Remarks` on both splits.
        prepare: (raw batch, encoding) → batch as the model takes it (float, normalized).
        lengths: (raw arrays of some rows, encoding) → length of each row, `[rows]`, where `prepare`
            pads a batch to its longest; outputs and gradients are then computed of rows of about
            one length. None, here or as the answer: all are of one length.
        augment: (prepared batch, names of augmentations, generator) → batch of the same shapes.
        loss: (model, prepared batch, label smoothing) → `[batch]` training losses. Where a loss
            depends on the other examples of its batch, they count there by their weights,
            `engine.models.calling.WEIGHTS` in the batch: an example of weight 0 is not there.
        width: class names → how many numbers a model gives for each example.
        record: (model, prepared batch) → what is kept of each example, `[batch, ...]` each; also
            the default output, as `output`, where it follows from the rest without another pass.
        summarize: (mean of the checkpoints' records, arrays of the split, class names) → columns of
            the table of predictions, `predicted` among them, `[n]` each. The mean model output is
            added as `output` unless `summarize` gives it.
        predicted: What `predicted` is, if it is a number: a name in
            `engine.store.quantities.PREDICTIONS`.
        in_words: (`predicted`, as `summarize` gives it, encoding) → texts, where it is token ids.
        outputs: What can be attributed; the first is the default, whose scores are stored.
        context: (model in eval mode, arrays of the training split, encoding, seed) → arrays that a
            model's record and outputs need beside the example itself, such as the negatives of a
            contrastive model. They are made once for each model and kept with a checkpoint. Record
            and outputs find them in the batch as `context_NAME`, whole, not one row an example.
            None: they need none.
        gallery: (model in eval mode, arrays of the test split, encoding) → arrays that its record
            needs of the test examples as a whole, such as the embeddings that retrieval chooses
            from. They are part of the context; outputs must not depend on them.
        generate: (model in eval mode, encoding, seeds `[n]`, steps, frames to keep, guidance) →
            what the model makes from noise that follows from each seed alone. None: it makes no
            examples.
        retrieval: How an example with a part missing is completed. None: `accept` needs all parts.
        unanswered: encoding → arrays of an empty target, one row each, where a person may leave the
            target to the models: `predicted` is then what they generate. None: they may not.
        doubts: (trained model, prepared training examples) → what makes it implausible that the
            model was trained on this study's labels, one sentence each.
        matched: (model, prepared batch) → `[batch, m]`, differentiable: what unlearning matches,
            such as class logits (`engine.tasks.outcomes.Matched`). None: models of this task
            cannot unlearn.
        choices: Outputs that a person can choose: families with classes, such as `class:{}`, and
            better words for some of `outputs`, by their name. `outputs` need not be listed.
        fit: (options, encoding) → how files become the pixels of `input`, where no other array
            depends on them, and `encode` of rows without `input` gives these others. None: pictures
            cannot be kept by reference.
        make_output: (name of a family in `choices`, numbers of its classes, of target tokens, of
            the tokens of a text, or the ends of a range: `OutputChoice.takes`) → its model output.
            Its scores are computed live, for one example at a time; `weight` is not used.
    """

    name: str
    views: tuple[View, ...]
    labels: LabelKind
    outcomes: str | None
    options: type[BaseModel]
    plan_encoding: Callable[[Any, Any, Sequence[str]], dict[str, Any]]
    encode: Callable[[Sequence[dict[str, Any]], Any, dict[str, Any]], Encoded]
    accept: Callable[[Given, Any, dict[str, Any]], Accepted]
    remarks: Callable[
        [Any, dict[str, Any], Mapping[str, Sequence[Mapping[str, np.ndarray]]]], Remarks
    ]
    prepare: Callable[[Batch, dict[str, Any]], Batch]
    augment: Callable[[Batch, Sequence[str], torch.Generator], Batch]
    loss: Callable[[torch.nn.Module, Batch, float], torch.Tensor]
    width: Callable[[Sequence[str]], int]
    record: Callable[[torch.nn.Module, Batch], dict[str, torch.Tensor]]
    summarize: Callable[
        [Mapping[str, np.ndarray], Mapping[str, np.ndarray], Sequence[str]], dict[str, np.ndarray]
    ]
    outputs: tuple[ModelOutput, ...]
    context: (
        Callable[
            [torch.nn.Module, Mapping[str, np.ndarray], dict[str, Any], int], dict[str, np.ndarray]
        ]
        | None
    ) = None
    gallery: (
        Callable[[torch.nn.Module, Mapping[str, np.ndarray], dict[str, Any]], dict[str, np.ndarray]]
        | None
    ) = None
    lengths: Callable[[Mapping[str, np.ndarray], dict[str, Any]], np.ndarray | None] | None = None
    generate: (
        Callable[[torch.nn.Module, dict[str, Any], np.ndarray, int, int, float], Generated] | None
    ) = None
    retrieval: Retrieval | None = None
    unanswered: Callable[[dict[str, Any]], dict[str, np.ndarray]] | None = None
    doubts: Callable[[torch.nn.Module, Batch], list[str]] | None = None
    in_words: Callable[[np.ndarray, dict[str, Any]], list[str]] | None = None
    predicted: str = "prediction"
    matched: Callable[[torch.nn.Module, Batch], torch.Tensor] | None = None
    choices: tuple[OutputChoice, ...] = ()
    fit: Callable[[Any, dict[str, Any]], Fit] | None = None
    make_output: Callable[[str, tuple[int, ...]], ModelOutput] | None = None

    @property
    def model_output(self) -> Callable[[torch.nn.Module, Batch], torch.Tensor]:
        """The value of the default output."""
        return self.outputs[0].value

    @property
    def trained_output(self) -> Callable[[torch.nn.Module, Batch], torch.Tensor]:
        """What training examples stand with (`ModelOutput.trained`)."""
        return self.outputs[0].trained or self.outputs[0].value

    def predictions(
        self,
        records: Mapping[str, np.ndarray],
        arrays: Mapping[str, np.ndarray],
        classes: Sequence[str],
        encoding: dict[str, Any],
    ) -> dict[str, np.ndarray]:
        """`summarize`, with what is predicted in words."""
        found = self.summarize(records, arrays, classes)
        if self.in_words is not None:
            words = self.in_words(found["predicted"], encoding)
            found["predicted"] = np.array(words, dtype=object)
        return found

    @property
    def output_choices(self) -> tuple[OutputChoice, ...]:
        """Everything that a person can choose: `outputs`, then the other `choices`."""
        chosen = {choice.name: choice for choice in self.choices}
        own = {output.name: plain_choice(output.name, output.title) for output in self.outputs}
        return (
            *(own | {n: c for n, c in chosen.items() if n in own}).values(),
            *(c for n, c in chosen.items() if n not in own),
        )

    def output_named(self, name: str, numbers: tuple[int, ...] = ()) -> ModelOutput:
        """The model output of a choice.

        Args:
            name: Of one of `outputs`, or of a family in `choices`.
            numbers: The classes of a member of a family, as numbers.
        """
        if not numbers:
            return next(output for output in self.outputs if output.name == name)
        assert self.make_output is not None, f"{self.name} names {name} but has no make_output"
        return self.make_output(name, numbers)


def plain_choice(name: str, title: str) -> OutputChoice:
    """The choice of an output that has no words of its own."""
    return OutputChoice(name, title, title, f"What determines {title}?")


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


def computed(name: str, encoding: Mapping[str, Any]) -> list[str]:
    """What the rounding of outputs depends on beside models and data, for fingerprints."""
    if name not in SETTLED:
        return []
    found: list[str] = importlib.import_module(SETTLED[name]).computed(encoding)
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
