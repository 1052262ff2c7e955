"""Diffusion: pictures that a model learns to make from noise, with or without classes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.models.denoising import CONDITIONS, DENOISER
from engine.store.errors import DataError
from engine.store.text import counted
from engine.tasks import (
    Accepted,
    Encoded,
    Generated,
    Given,
    Remarks,
    Task,
    denoising,
    image_classification,
    picture_values,
)
from engine.tasks.denoising import LABELS, SAMPLE
from engine.tasks.diffusion_options import NONE, Options
from engine.tasks.noising import Process, make_process, unstacked
from engine.tasks.sampling import guided, sample

if TYPE_CHECKING:
    from datasets import Dataset

    from engine.attribution.trak.plan import Batch

CLASS = "class"
"""Column of the names of classes."""
_USUAL = ("label", "labels", "class", "category", "target", "y")
"""Usual names of columns of classes, the best first."""
_MOST_CLASSES = 1000
_OWN_KEY = "key"
_READ_ALREADY = ("input", "label", "id", "file", "source_row")
"""Columns that a source of this project has, whatever the source's own are."""


def plan_encoding(rows: Dataset, options: Options, classes: Sequence[str]) -> dict[str, Any]:
    """The encoding of the pictures, and the process.

    Returns:
        As of `image_classification`, and: `class_column`, None without classes; `conditions`, the
        names of the classes; `timesteps`, `schedule`, `betas` if they are given, `prediction` and
        `draws` as the options say; `answer` and `inputs`, for models; `from_folder` and `expected`,
        what was taken from a folder of diffusers, if something was.

    Raises:
        DataError, SpecError: As of `image_classification`; or there is no such column.
    """
    pictures = image_classification.plan_encoding(rows, options, classes)
    column = _class_column(rows, options.class_column)
    names = [] if column is None else _class_names(rows, column)
    inputs: dict[str, Any] = {
        SAMPLE: {"shape": pictures["shape"], "dtype": "float32", "start": [], "rest": 0.0},
        "timestep": {"shape": [], "dtype": "int64", "start": [], "rest": 0},
    }
    if names:
        inputs[LABELS] = inputs["timestep"]
    keys = ("timesteps", "schedule", "prediction", "draws")
    return {
        **pictures,
        "class_column": column,
        CONDITIONS: names,
        **{key: getattr(options, key) for key in keys},
        **({"betas": list(options.betas)} if options.betas else {}),
        **options.told(),
        "answer": DENOISER,
        "inputs": inputs,
    }


def _class_column(rows: Dataset, wanted: str) -> str | None:
    """The column of classes; None for none.

    A source's own `label` has another name here, because the label of an example is empty.
    """
    if wanted == NONE:
        return None
    own = [name for name in rows.column_names if name not in _READ_ALREADY]
    there: dict[str, str] = {name.removeprefix("original_"): name for name in own}
    if wanted != "auto":
        if wanted not in there:
            raise DataError(
                f"There is no column {wanted!r} of classes; there are {', '.join(there)}. Name one "
                'as `class_column` under [task], or write "none".'
            )
        return there[wanted]
    return next((there[name] for name in _USUAL if name in there), None)


def _class_names(rows: Dataset, column: str) -> list[str]:
    """Names of the classes of the training pictures, in the source's order where it has one."""
    names = getattr(rows.features[column], "names", None)
    if names is None:
        values = set(rows.select_columns([column])[:][column])
        if None in values:
            raise DataError(f"The column {column!r} of classes has training pictures without one.")
        names = [str(value) for value in sorted(values)]
    if not 1 < len(names) <= _MOST_CLASSES:
        raise DataError(
            f"The column {column!r} has {counted(len(names), 'class', 'classes')}, and 2 to "
            f'{_MOST_CLASSES:,} are possible. Write class_column = "none" under [task] to make '
            "pictures without classes, or name another column."
        )
    return list(names)


def encode(rows: Sequence[dict[str, Any]], options: Options, encoding: dict[str, Any]) -> Encoded:
    """uint8 `input` [rows, channels, height, width]; int64 `class_labels` [rows], where there are
    classes; int64 `key` [rows], a number for each content; the column `class` of names."""
    found = image_classification.encode([{**row, "label": 0} for row in rows], options, encoding)
    pixels, names = found.arrays["input"], encoding[CONDITIONS]
    arrays = {"input": pixels}
    columns: dict[str, list[Any]] = {}
    contents = [one.tobytes() for one in pixels]
    if names:
        numbers = [_class_of(row, encoding) for row in rows]
        arrays[LABELS] = np.array(numbers, np.int64)
        columns[CLASS] = [names[number] for number in numbers]
        contents = [f"{n}\0".encode() + one for n, one in zip(numbers, contents, strict=True)]
    arrays[_OWN_KEY] = np.array([_key(content) for content in contents], np.int64)
    return Encoded(arrays, columns, found.thumbnails)


def _class_of(row: Mapping[str, Any], encoding: dict[str, Any]) -> int:
    """Number of a row's class."""
    value, names = row.get(encoding["class_column"]), encoding[CONDITIONS]
    if isinstance(value, int) and not isinstance(value, bool) and str(value) not in names:
        if 0 <= value < len(names):
            return value
    elif str(value) in names:
        return int(names.index(str(value)))
    raise DataError(
        f"example {row['id']!r}: {value!r} is no class of the training pictures; these are "
        f"{', '.join(names[:20])}."
    )


def _key(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big", signed=True)


def prepare(batch: Batch, encoding: dict[str, Any]) -> Batch:
    """`sample`, and `class_labels` if there are any, as models take them, without noise; the keys,
    the tables of the process and the numbers of the draws."""
    pixels = image_classification.prepare({"input": batch["input"]}, encoding)["input"]
    process = process_of(encoding)
    size, device = len(pixels), pixels.device
    draws = torch.arange(encoding["draws"], device=device)
    return {
        SAMPLE: pixels,
        **({LABELS: batch[LABELS]} if encoding[CONDITIONS] else {}),
        denoising.KEY: batch[_OWN_KEY],
        denoising.PROCESS: process.stacked().to(device).expand(size, -1, -1),
        denoising.DRAWS: draws.expand(size, -1),
    }


def process_of(encoding: Mapping[str, Any]) -> Process:
    """The process that an encoding describes."""
    return make_process(
        encoding["timesteps"], encoding["schedule"], encoding["prediction"], encoding.get("betas")
    )


def augment(batch: Batch, names: Sequence[str], generator: torch.Generator) -> Batch:
    """Change the pictures: see `image_classification.augment`."""
    changed = image_classification.augment({"input": batch[SAMPLE]}, names, generator)
    return {**batch, SAMPLE: changed["input"]}


def accept(given: Given, options: Options, encoding: dict[str, Any]) -> Accepted:
    """Take a picture: see `image_classification`. Where there are classes it has the first one."""
    found = image_classification.accept(given, options, encoding)
    names = encoding[CONDITIONS]
    if not names:
        return found
    row = {**found.row, encoding["class_column"]: names[0]}
    note = f"It is taken for a picture of the class “{names[0]}”, the first, as none was given."
    return Accepted(row, found.options, [*found.notes, note])


def remarks(
    rows: Dataset,
    encoding: dict[str, Any],
    arrays: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
) -> Remarks:
    """What there is to say of the pictures, whether they have classes, and which are known."""
    labeled = {
        split: [{**shard, "label": shard[_OWN_KEY]} for shard in shards]
        for split, shards in arrays.items()
    }
    found = picture_values.remarks(rows, encoding, labeled)
    names, column = encoding[CONDITIONS], encoding["class_column"]
    made = "Pictures are made without classes."
    if names:
        shown = column.removeprefix("original_")
        made = f"Pictures are made by their class, one of {len(names)} in the column {shown!r}."
    keys = {
        split: np.concatenate([shard[_OWN_KEY] for shard in shards])
        for split, shards in arrays.items()
    }
    warnings = []
    if twice := len(keys["train"]) - len(np.unique(keys["train"])):
        warnings.append(
            f"{counted(twice, 'training picture')} of {len(keys['train']):,} "
            f"{'repeats' if twice == 1 else 'repeat'} another one: models memorize pictures that "
            "they see more often."
        )
    if leaked := int(np.isin(keys["test"], keys["train"]).sum()):
        warnings.append(
            f"{counted(leaked, 'test picture')} of {len(keys['test']):,} "
            f"{'occurs' if leaked == 1 else 'occur'} in the training split, too."
        )
    notes = [made, *encoding.get("from_folder", []), *found.notes]
    return Remarks(notes, [*warnings, *found.warnings])


def generate(
    model: torch.nn.Module,
    encoding: dict[str, Any],
    seeds: np.ndarray,
    steps: int,
    frames: int,
    guidance: float,
) -> Generated:
    """Make a picture from each seed by DDIM, of the class whose number is the seed's remainder.

    Args:
        steps: At most as many as there are timesteps.
        frames: How many of them are kept.
        guidance: How far predictions are moved away from those for other classes
            (`engine.tasks.sampling.guided`); without classes it does nothing.
    """
    device, names = next(model.parameters()).device, encoding[CONDITIONS]
    process = unstacked(process_of(encoding).stacked().to(device))
    given = torch.from_numpy(np.asarray(seeds, np.int64)).to(device)
    told = {LABELS: given % len(names)} if names else {}

    def predict(noisy: torch.Tensor, timestep: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return denoising.predict(model, {LABELS: labels}, noisy, timestep)

    found = sample(
        guided(predict, told[LABELS], len(names), guidance)
        if names
        else lambda noisy, timestep: denoising.predict(model, {}, noisy, timestep),
        process,
        encoding["shape"],
        given,
        steps,
        frames=frames,
    )
    classes = {CLASS: [names[number] for number in told[LABELS].tolist()]} if names else {}
    pictures = _as_pixels(found.pictures, encoding)
    labels = {name: one.cpu().numpy() for name, one in told.items()}
    return Generated(
        pictures,
        {"input": pictures, _OWN_KEY: np.zeros(len(pictures), np.int64), **labels},
        classes,
        _as_pixels(found.frames, encoding),
        _as_pixels(found.denoised, encoding),
        [1 + step for step in found.timesteps],
    )


def _as_pixels(values: torch.Tensor, encoding: dict[str, Any]) -> np.ndarray:
    """The inverse of `prepare`, uint8."""
    mean, std = (
        torch.tensor(encoding[name], device=values.device).view(-1, 1, 1)
        for name in ("mean", "std")
    )
    pixels: np.ndarray = ((values * std + mean) * 255).round().clamp(0, 255).byte().cpu().numpy()
    return pixels


TASK = Task(
    name="diffusion",
    views=("picture",),
    labels="none",
    outcomes=None,
    options=Options,
    plan_encoding=plan_encoding,
    encode=encode,
    accept=accept,
    remarks=remarks,
    prepare=prepare,
    augment=augment,
    loss=denoising.loss,
    width=lambda classes: 1,
    record=denoising.record,
    summarize=denoising.summarize,
    predicted="denoising-error",
    outputs=denoising.OUTPUTS,
    context=denoising.context,
    matched=denoising.errors,
    choices=denoising.CHOICES,
    make_output=denoising.make_output,
    generate=generate,
)
