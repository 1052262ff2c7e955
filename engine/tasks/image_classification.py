"""Image classification: pictures of one shape, cross entropy, the margin as model output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from engine.data.fitting import BLACK, Fit, in_parallel, pixels_and_thumbnail
from engine.data.headers import headers_of
from engine.data.picture_background import WHITE, color_name
from engine.data.pictures import examine
from engine.data.thumbnails import MAX_SIDE
from engine.store.errors import DataError, SpecError
from engine.store.rows import evenly_spread
from engine.store.text import counted
from engine.tasks import Accepted, Encoded, Given, Task, classification
from engine.tasks.picture_options import Options as Options
from engine.tasks.picture_values import between, plan_values, remarks, shown

if TYPE_CHECKING:
    from datasets import Dataset

    from engine.attribution.trak.plan import Batch

OUTSIDE = "yours"
"""Id of an example from outside the dataset."""
_ROWS_FOR_STATISTICS = 10_000
FEW_PIXELS = 4
"""A picture from outside whose longer side is this many times shorter than seen is a blur."""
LONG = 4.0
"""How much longer or shorter its proportions may be than the model's."""
_CROP_PADDING = 4


def plan_encoding(rows: Dataset, options: Options, classes: Sequence[str]) -> dict[str, Any]:
    """Determine shape, normalization and thumbnail size from the training pictures.

    Returns:
        `shape` [channels, height, width]; `mean` and `std` of each channel; `cell`, the longest
        side of a thumbnail in pixels; `values`, if any picture has more than 8 bits a value: see
        `plan_values`.

    Raises:
        DataError: A picture cannot be read, or sizes differ and no `image_size` is set.
        SpecError: `mean`, `std` or `value_range` does not fit.
    """
    sizes: dict[tuple[int, int], str] = {}
    all_grayscale = True
    deep: list[int] = []
    for row, (id_, header) in enumerate(headers_of(rows)):
        sizes.setdefault(header.size, id_)
        all_grayscale &= header.grayscale
        if header.deep:
            deep.append(row)
    if options.image_size is None:
        height, width = _only_size(sizes)
    elif isinstance(options.image_size, int):
        height = width = options.image_size
    else:
        height, width = options.image_size
    channels = 1 if options.color == "grey" or (options.color == "keep" and all_grayscale) else 3
    encoding: dict[str, Any] = {
        "shape": [channels, height, width],
        "cell": min(MAX_SIDE, max(max(size) for size in sizes)),
    }
    if deep or options.value_range != "auto":
        encoding["values"] = plan_values(rows, deep, options.value_range)
    mean, std = _statistics(rows, options, encoding)
    return {**encoding, "mean": mean, "std": std}


def _only_size(sizes: dict[tuple[int, int], str]) -> tuple[int, int]:
    if len(sizes) > 1:
        (first, first_id), (other, other_id) = list(sizes.items())[:2]
        raise DataError(
            f"Training pictures differ in size: {first_id!r} has {first[0]} × {first[1]} pixels, "
            f"{other_id!r} has {other[0]} × {other[1]}. Set image_size under [task]."
        )
    ((width, height),) = sizes
    return height, width


def _statistics(
    rows: Dataset, options: Options, encoding: dict[str, Any]
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, exactly, from counts of pixel values."""
    channels = encoding["shape"][0]
    measured = None
    if options.mean == "auto" or options.std == "auto":
        chosen = evenly_spread(len(rows), _ROWS_FOR_STATISTICS)
        counts = np.zeros((channels, 256), np.int64)
        for low in range(0, len(chosen), 64):
            chunk = rows[chosen[low : low + 64].tolist()]
            examples = [
                dict(zip(chunk, values, strict=True))
                for values in zip(*chunk.values(), strict=True)
            ]
            pictures = encode(examples, options, encoding).arrays["input"]
            for channel in range(channels):
                counts[channel] += np.bincount(pictures[:, channel].reshape(-1), minlength=256)
        values = np.arange(256) / 255
        total = counts.sum(1)
        mean = counts @ values / total
        variance = (counts * (values - mean[:, None]) ** 2).sum(1) / total
        measured = (
            mean,
            np.maximum(np.sqrt(variance), 1 / 255),
        )  # pictures of a single gray must not divide by 0
    given = (options.mean, options.std)
    found = [
        measured[i].round(6).tolist()
        if measured is not None and value == "auto"
        else _per_channel(("mean", "std")[i], value, channels)
        for i, value in enumerate(given)
    ]
    if min(found[1]) <= 0:
        raise SpecError(f"task.std = {options.std}: it divides, so it must be above 0.")
    return found[0], found[1]


def _per_channel(name: str, value: Any, channels: int) -> list[float]:
    values = value if isinstance(value, list) else [value] * channels
    if len(values) != channels:
        raise SpecError(
            f"task.{name} = {value}: {counted(len(values), 'value')} for pictures of "
            f"{counted(channels, 'channel')}."
        )
    return [float(number) for number in values]


def encode(rows: Sequence[dict[str, Any]], options: Options, encoding: dict[str, Any]) -> Encoded:
    """Decode pictures to uint8 `input` [rows, channels, height, width] and int64 `label` [rows].

    Examples from outside come with a `background` in the encoding, the color of transparent parts,
    and a `border` where the data have none. The data's own go on white, with black borders.
    Rows without `input` have labels only.
    """
    labels = classification.label_array(rows)
    if "input" not in rows[0]:
        return Encoded({"label": labels}, {})
    fit = fit_of_options(options, encoding)

    def one(row: dict[str, Any]) -> tuple[np.ndarray, Image.Image]:
        where = f"example {row['id']!r}"
        return pixels_and_thumbnail(row["input"], where, fit, row.get("border", BLACK))

    pictures = np.empty((len(rows), *fit.shape), np.uint8)
    thumbnails = []
    for target, (pixels, thumbnail) in zip(pictures, in_parallel(one, rows), strict=True):
        target[:] = pixels
        thumbnails.append(thumbnail)
    return Encoded({"input": pictures, "label": labels}, {}, thumbnails)


def fit_of_options(options: Options, encoding: dict[str, Any]) -> Fit:
    """How the pictures of a study, or one from outside, become arrays."""
    channels, height, width = encoding["shape"]
    return Fit(
        (channels, height, width),
        encoding["cell"],
        sized=options.image_size is not None,
        resize=options.resize,
        color=options.color,
        between=between(encoding),
        background=encoding.get("background", WHITE),
    )


def accept(given: Given, options: Options, encoding: dict[str, Any]) -> Accepted:
    """Take a picture file of any size and color, convert it, and say how it was converted.

    A study whose pictures all have one size has no rule for other sizes: such pictures keep their
    proportions and get borders.
    """
    content = given.get("picture")
    if not isinstance(content, bytes) or not content:
        raise DataError("The file is empty.")
    channels, height, width = encoding["shape"]
    row: dict[str, Any] = {"input": {"bytes": content, "path": None}, "label": 0, "id": OUTSIDE}
    looks = examine(row["input"], f"example {OUTSIDE!r}")
    header, scale = looks.header, between(encoding)
    changes: dict[str, Any] = {"color": "grey" if channels == 1 else "rgb"}
    if options.image_size is None:
        changes |= {"image_size": (height, width), "resize": "pad"}
        row["border"] = encoding.get("background", BLACK)
    notes = []
    if looks.animated:
        notes.append("It is animated; only its first frame is used.")
    if looks.turned:
        notes.append("It was rotated as its EXIF data say.")
    if looks.mode == "CMYK":
        notes.append("Its CMYK colors were converted to RGB.")
    if header.deep and scale is None:
        notes.append("Only the upper 8 of its 16 bits are used.")
    elif header.deep and scale is not None:
        notes.append(f"Its values from {shown(*scale)} became 0 to 255, as in training pictures.")
    elif scale is not None:
        notes.append("It has 8 bits a value and was not scaled like the training pictures.")
    if looks.transparent:
        behind = encoding.get("background", WHITE)
        common = "" if behind == WHITE else ", the background of the training pictures"
        notes.append(f"Its transparent parts were filled with {color_name(behind)}{common}.")
    if channels == 1 and not header.grayscale:
        notes.append("Its colors were removed: the model takes grayscale pictures only.")
    if header.size != (width, height):
        smaller = min(header.size) < min(width, height)
        notes.append(
            f"It has {header.size[0]:,} × {header.size[1]:,} pixels and was "
            f"{'enlarged' if smaller else 'resized'} to the {width} × {height} that the model sees."
        )
    notes += _doubts(header.size, (width, height), options.model_copy(update=changes))
    return Accepted(row, options.model_copy(update=changes), notes)


def _doubts(size: tuple[int, int], seen: tuple[int, int], options: Options) -> list[str]:
    """Why the prediction of a picture of this size may say little about it."""
    found = []
    if max(size) * FEW_PIXELS < max(seen):
        found.append(
            "It has so few pixels that the model sees one blur: do not trust its prediction."
        )
    stretch = (size[0] * seen[1]) / (size[1] * seen[0])
    if not 1 / LONG < stretch < LONG:
        becomes = {
            "crop": "most of it was cut off",
            "pad": "most of what the model sees is border",
        }.get(options.resize, "it was squeezed beyond recognition")
        side = "wide" if stretch > 1 else "tall"
        found.append(f"It is so {side} that {becomes}: crop it to what matters.")
    return found


def prepare(batch: Batch, encoding: dict[str, Any]) -> Batch:
    """Pixels uint8 `[b, c, h, w]` → float32 (x / 255 − mean) / std."""
    pixels = batch["input"]
    mean, std = (
        torch.tensor(encoding[name], dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
        for name in ("mean", "std")
    )
    return {**batch, "input": pixels.float().div_(255).sub_(mean).div_(std)}


def augment(batch: Batch, names: Sequence[str], generator: torch.Generator) -> Batch:
    """Change each picture at random, in the order of `names`.

    `flip` mirrors half of them, `crop` shifts each by up to 4 pixels over reflected borders,
    `cutout` replaces a square with a quarter of the side by 0 (the mean, after normalization).

    Raises:
        SpecError: There is no augmentation of that name.
    """
    pictures = batch["input"]
    for name in names:
        if name not in AUGMENTATIONS:
            raise SpecError(
                f"augmentations: {name!r} is not known for image classification; "
                f"take {', '.join(AUGMENTATIONS)}."
            )
        pictures = AUGMENTATIONS[name](pictures, generator)
    return {**batch, "input": pictures}


def _flip(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    mirrored = _randint(2, len(pictures), generator, pictures).bool()
    return torch.where(mirrored.view(-1, 1, 1, 1), pictures.flip(3), pictures)


def _crop(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    b, _, h, w = pictures.shape
    padding = min(_CROP_PADDING, h - 1, w - 1)  # reflection allows less than a side
    padded = functional.pad(pictures, [padding] * 4, mode="reflect")
    top, left = (_randint(2 * padding + 1, b, generator, pictures).view(b, 1, 1) for _ in range(2))
    rows = top + torch.arange(h, device=pictures.device).view(1, h, 1)
    columns = left + torch.arange(w, device=pictures.device).view(1, 1, w)
    example = torch.arange(b, device=pictures.device).view(b, 1, 1)
    moved = padded.permute(0, 2, 3, 1)[example, rows, columns]  # [b, h, w, c]
    return moved.permute(0, 3, 1, 2)


def _cutout(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    b, _, h, w = pictures.shape
    inside = []
    for side in (h, w):
        half = max(side // 8, 1)
        middle = _randint(side, b, generator, pictures).view(b, 1)
        offset = torch.arange(side, device=pictures.device) - middle
        inside.append((offset >= -half) & (offset < half))
    blank = inside[0].view(b, 1, h, 1) & inside[1].view(b, 1, 1, w)
    return pictures.masked_fill(blank, 0.0)


def _randint(high: int, n: int, generator: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    """Draw on the generator's device, so that every device gets the same numbers."""
    return torch.randint(high, (n,), generator=generator, device=generator.device).to(like.device)


AUGMENTATIONS = {"flip": _flip, "crop": _crop, "cutout": _cutout}
"""Name in study.toml → (pictures `[b, c, h, w]`, generator) → pictures."""

TASK = Task(
    name="image-classification",
    views=("picture",),
    labels="class",
    outcomes="classes",
    options=Options,
    plan_encoding=plan_encoding,
    encode=encode,
    accept=accept,
    remarks=remarks,
    prepare=prepare,
    augment=augment,
    loss=classification.loss,
    width=len,
    record=classification.record,
    matched=classification.logits,
    summarize=classification.summarize,
    outputs=classification.OUTPUTS,
    choices=classification.CHOICES,
    fit=fit_of_options,
    make_output=classification.make_output,
)
