"""Pictures with captions: two towers, the contrastive loss, alignment as model output."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.data.columns import is_list_column
from engine.data.text_columns import find_text_column
from engine.data.tokens import TOKENIZER
from engine.data.words import words
from engine.models.pairs import ANSWER, PAIRS
from engine.store.errors import DataError
from engine.store.text import counted
from engine.tasks import (
    Accepted,
    Encoded,
    Given,
    Remarks,
    Task,
    contrastive,
    image_classification,
    picture_values,
    text_classification,
)
from engine.tasks.contrastive import CAPTION_KEY, PICTURE_KEY
from engine.tasks.image_classification import OUTSIDE
from engine.tasks.pair_options import ALIKE, Options

if TYPE_CHECKING:
    from datasets import Dataset

    from engine.attribution.trak.plan import Batch

IDS, LENGTH = "input_ids", "length"
_USUAL = ("caption", "captions", "text", "texts", "sentence", "sentences", "title", "description")
"""Usual names of columns of captions, the best first."""


# --- captions -------------------------------------------------------------------------------------


def caption_of(value: Any, id_: str) -> str:
    """The caption of an example: its text, or the first of its texts.

    Raises:
        DataError: There is none.
    """
    if isinstance(value, (list, tuple)):
        value = next((one for one in value if one), None)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(
            f"example {id_!r}: the caption is {'missing' if value is None else 'empty'}. Write one "
            "in its row, or remove the row."
        )
    if not isinstance(value, str):
        raise DataError(
            f"example {id_!r}: a caption was expected and {type(value).__name__} was found. Name "
            "the column of captions as `caption` under [task]."
        )
    return value


class _Captions:
    """The captions of a split, as a split of texts: what the vocabulary is made from."""

    def __init__(self, rows: Dataset, column: str) -> None:
        self._rows, self._column = rows, column

    def select_columns(self, names: Sequence[str]) -> _Captions:
        return self

    def iter(self, size: int) -> Iterator[dict[str, list[str]]]:
        for chunk in self._rows.select_columns([self._column, "id"]).iter(size):
            ids = chunk["id"]
            values = zip(chunk[self._column], ids, strict=True)
            yield {"input": [caption_of(value, id_) for value, id_ in values], "id": ids}


# --- encoding -------------------------------------------------------------------------------------


def plan_encoding(rows: Dataset, options: Options, classes: Sequence[str]) -> dict[str, Any]:
    """The encoding of the pictures and of the captions.

    Returns:
        As of `image_classification` and `text_classification`, and: `caption`, the column of
        captions; `negatives` and `gallery`, as the options say; `answer` and `inputs`, for models.

    Raises:
        DataError, SpecError: As of these two; or all captions are the same.
    """
    column = find_text_column(rows, options.caption, "caption", _USUAL, lists=True)
    captions: Any = _Captions(rows, column)
    _refuse_one_caption(captions)
    texts = text_classification.plan_encoding(captions, options.of_texts(), classes)
    pictures = image_classification.plan_encoding(rows, _of_pictures(options), classes)
    tokens = texts.get("inputs", {})
    length = [texts["max_tokens"]]
    whole = {"dtype": "int64", "start": [1], "rest": 0}
    found = {
        **texts,
        **pictures,
        "caption": column,
        "negatives": options.negatives,
        "gallery": options.gallery,
        "alike": ALIKE,
        ANSWER: PAIRS,
        "inputs": {
            "pixel_values": {
                "shape": pictures["shape"],
                "dtype": "float32",
                "start": [],
                "rest": 0.0,
            },
            IDS: tokens.get(IDS, {"shape": length, **whole}),
            "attention_mask": tokens.get("attention_mask", {"shape": length, **whole}),
        },
    }
    if options._expected:
        found |= {"from_folder": list(options._from_folder), "expected": list(options._expected)}
    return found


def _refuse_one_caption(captions: Any) -> None:
    first: str | None = None
    for chunk in captions.iter(1024):
        for caption in chunk["input"]:
            first = caption if first is None else first
            if caption != first:
                return
    raise DataError(f"All training pairs have the caption {first!r}; there is nothing to learn.")


def _of_pictures(options: Options) -> image_classification.Options:
    return image_classification.Options(**options.of_pictures())


def encode(rows: Sequence[dict[str, Any]], options: Options, encoding: dict[str, Any]) -> Encoded:
    """Pictures and captions as numbers, and what tells equal ones.

    uint8 `input` [rows, channels, height, width]; `input_ids` [rows, max_tokens], padded; int32
    `length` [rows], the tokens of the whole caption; int64 `picture_key` and `caption_key` [rows].
    """
    plain = [{**row, "label": 0} for row in rows]
    column, outside = encoding["caption"], plain[0]["id"] == OUTSIDE
    arrays, columns, thumbnails = {"label": np.zeros(len(rows), np.int64)}, {}, None
    if not outside or "input" in plain[0]:
        pictures = image_classification.encode(plain, _of_pictures(options), encoding)
        arrays |= _picture_arrays(pictures.arrays["input"])
        thumbnails = pictures.thumbnails
    if not outside or column in plain[0]:
        captions = [caption_of(row.get(column), row["id"]) for row in plain]
        texts = [{**row, "input": text} for row, text in zip(plain, captions, strict=True)]
        read = text_classification.encode(texts, options.of_texts(), encoding).arrays
        arrays |= _caption_arrays(read, captions, encoding)
        columns = {"text": captions}
    return Encoded(arrays, columns, thumbnails)


def _picture_arrays(pixels: np.ndarray) -> dict[str, np.ndarray]:
    keys = [_key(one.tobytes()) for one in pixels]
    return {"input": pixels, PICTURE_KEY: np.array(keys, np.int64)}


def _caption_arrays(
    read: Mapping[str, np.ndarray], captions: Sequence[str], encoding: dict[str, Any]
) -> dict[str, np.ndarray]:
    ids = read[IDS] if TOKENIZER in encoding else read["input"]
    lengths = read.get(LENGTH)
    if lengths is None:
        lengths = np.array([len(words(text)) for text in captions], np.int32)
    keys = [_key(text.strip().encode()) for text in captions]
    return {IDS: ids.astype(np.int32), LENGTH: lengths, CAPTION_KEY: np.array(keys, np.int64)}


def _key(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big", signed=True)


def prepare(batch: Batch, encoding: dict[str, Any]) -> Batch:
    """`pixel_values`, `input_ids` and `attention_mask`, as models take them, and the keys."""
    lengths = batch[LENGTH].clamp(max=encoding["max_tokens"])
    places = torch.arange(encoding["max_tokens"], device=lengths.device)
    mask = places < lengths[:, None]
    pictures = image_classification.prepare({"input": batch["input"]}, encoding)["input"]
    return contrastive.with_keys(
        {
            "pixel_values": pictures,
            IDS: batch[IDS].to(torch.int64),
            "attention_mask": mask.to(torch.int64),
            **{name: batch[name] for name in (PICTURE_KEY, CAPTION_KEY, "label")},
        }
    )


def augment(batch: Batch, names: Sequence[str], generator: torch.Generator) -> Batch:
    """Change the pictures: see `image_classification.augment`."""
    changed = image_classification.augment({"input": batch["pixel_values"]}, names, generator)
    return {**batch, "pixel_values": changed["input"]}


def accept(given: Given, options: Options, encoding: dict[str, Any]) -> Accepted:
    """Take a picture, a caption, or both: see `image_classification` and `text_classification`."""
    row: dict[str, Any] = {"id": OUTSIDE}
    notes = []
    if "picture" in given:
        picture = image_classification.accept(given, _of_pictures(options), encoding)
        row |= picture.row
        options = options.model_copy(update=dict(picture.options))
        notes += picture.notes
    if "text" in given:
        caption = text_classification.accept(given, options.of_texts(), encoding)
        row[encoding["caption"]] = caption.row["input"]
        notes += caption.notes
    return Accepted(row, options, notes)


# --- remarks --------------------------------------------------------------------------------------


def remarks(
    rows: Dataset,
    encoding: dict[str, Any],
    arrays: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
) -> Remarks:
    """What there is to say of pictures and of captions, of pairs that occur twice, and of where
    captions came from."""
    texts = {
        split: [{**shard, "input": shard[IDS]} for shard in shards]
        for split, shards in arrays.items()
    }
    found = [
        picture_values.remarks(rows, encoding, arrays),
        text_classification.remarks(rows, encoding, texts),
    ]
    notes = [f"Captions are the column {encoding['caption']!r}.", *encoding.get("from_folder", [])]
    if is_list_column(rows.features[encoding["caption"]]):
        notes.append("Of several captions of a picture the first is read.")
    cut = [] if TOKENIZER in encoding else _cut(encoding, arrays)
    return Remarks(
        [*notes, *(note for one in found for note in one.notes), *cut],
        [*_repeated(arrays), *(w for one in found for w in one.warnings)],
    )


def _cut(
    encoding: dict[str, Any], arrays: Mapping[str, Sequence[Mapping[str, np.ndarray]]]
) -> list[str]:
    most = encoding["max_tokens"]
    lengths = np.concatenate([shard[LENGTH] for shards in arrays.values() for shard in shards])
    number = int((lengths > most).sum())
    if not number:
        return []
    return [
        f"Of {len(lengths):,} captions {number:,} are cut: models read the first {most:,} "
        f"words, and the longest has {lengths.max():,}. Raise max_tokens under [task] to read more."
    ]


def _repeated(arrays: Mapping[str, Sequence[Mapping[str, np.ndarray]]]) -> list[str]:
    """Warnings about pairs that occur twice, and about captions and pictures that are shared."""
    keys = {
        split: np.concatenate(
            [np.stack([shard[PICTURE_KEY], shard[CAPTION_KEY]], 1) for shard in shards]
        )
        for split, shards in arrays.items()
    }
    found = []
    train, test = keys["train"], keys["test"]
    twice = len(train) - len(np.unique(train, axis=0))
    if twice:
        found.append(
            f"{counted(twice, 'training pair')} of {len(train):,} repeat another one, picture and "
            "caption."
        )
    known = {*map(tuple, train.tolist())}
    leaked = sum(tuple(one) in known for one in test.tolist())
    if leaked:
        found.append(
            f"{counted(leaked, 'test pair')} of {len(test):,} occur in the training split, too."
        )
    for column, what in ((0, "picture"), (1, "caption")):
        alike = len(train) - len(np.unique(train[:, column])) - twice
        if alike > 0:
            found.append(
                f"{alike:,} training pairs have the {what} of another pair. Equal {what}s are no "
                "negatives of each other."
            )
    return found


TASK = Task(
    name="image-text",
    views=("picture", "text"),
    labels="none",
    outcomes="retrieval",
    options=Options,
    plan_encoding=plan_encoding,
    encode=encode,
    accept=accept,
    remarks=remarks,
    prepare=prepare,
    augment=augment,
    loss=contrastive.loss,
    width=lambda classes: 1,
    record=contrastive.record,
    summarize=contrastive.summarize,
    outputs=contrastive.OUTPUTS,
    choices=contrastive.CHOICES,
    context=contrastive.negatives(prepare),
    gallery=contrastive.gallery(prepare),
    retrieval=contrastive.RETRIEVED,
)
