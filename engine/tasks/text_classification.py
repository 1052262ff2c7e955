"""Text classification: words of a fixed vocabulary, cross entropy, the margin as model output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from engine.data.words import words
from engine.store.errors import DataError, SpecError
from engine.tasks import Accepted, Encoded, Remarks, Task, classification

if TYPE_CHECKING:
    from datasets import Dataset

    from engine.attribution.trak.plan import Batch

PADDING, UNKNOWN = 0, 1
_SPECIAL = ["<padding>", "<unknown>"]
_MANY_UNKNOWN = 0.2
"""From this share of unknown words in the test texts on, the data get a warning."""


class Options(BaseModel):
    """`[task]` of a text classification study."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 128
    """The most words that are read of each text; the rest is ignored."""
    max_vocabulary: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """How many of the most frequent words of the training texts the vocabulary has."""


def plan_encoding(rows: Dataset, options: Options, classes: Sequence[str]) -> dict[str, Any]:
    """Build the vocabulary of the training texts, sorted by frequency, then alphabetically.

    Returns:
        `vocabulary`: padding, unknown, then the words; a word's position is its token id.
        `max_tokens`: tokens per text, at most as many as the longest training text has.

    Raises:
        DataError: A row has no text, or a text without words.
    """
    counts: Counter[str] = Counter()
    longest = 1
    for chunk in rows.select_columns(["input", "id"]).iter(1024):
        for text, id_ in zip(chunk["input"], chunk["id"], strict=True):
            found = _words_of(text, id_)
            longest = max(longest, len(found))
            counts.update(found)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: options.max_vocabulary]
    return {"vocabulary": _SPECIAL + frequent, "max_tokens": min(longest, options.max_tokens)}


def _words_of(text: Any, id_: str) -> list[str]:
    if not isinstance(text, str):
        found = "nothing" if text is None else type(text).__name__
        raise DataError(
            f"example {id_!r}: a text was expected and {found} was found. "
            "Name the column of texts as `input` under [data]."
        )
    found_words = words(text)
    if not found_words:
        raise DataError(f"example {id_!r}: the text {text[:40]!r} has no words. Remove the row.")
    return found_words


def encode(rows: Sequence[dict[str, Any]], options: Options, encoding: dict[str, Any]) -> Encoded:
    """Turn texts into int64 `input` [rows, max_tokens], padded, and int64 `label` [rows]."""
    token = {word: i for i, word in enumerate(encoding["vocabulary"])}
    tokens = np.full((len(rows), encoding["max_tokens"]), PADDING, np.int64)
    for row, target in zip(rows, tokens, strict=True):
        found = _words_of(row["input"], row["id"])[: encoding["max_tokens"]]
        target[: len(found)] = [token.get(word, UNKNOWN) for word in found]
    return Encoded(
        {"input": tokens, "label": classification.label_array(rows)},
        {"text": [row["input"] for row in rows]},
    )


def remarks(
    rows: Dataset,
    encoding: dict[str, Any],
    arrays: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
) -> Remarks:
    """The share of the test texts' words that the vocabulary lacks."""
    read = sum(int((shard["input"] != PADDING).sum()) for shard in arrays["test"])
    unknown = sum(int((shard["input"] == UNKNOWN).sum()) for shard in arrays["test"])
    note = f"{unknown / max(read, 1):.1%} of the words of the test texts are unknown."
    warnings = []
    if unknown >= _MANY_UNKNOWN * read:
        warnings.append(
            f"{note} The vocabulary has the {len(encoding['vocabulary']) - len(_SPECIAL):,} most "
            "frequent words of the training texts, and models read all others as one word. "
            "Raise max_vocabulary under [task], or add training texts like the test texts."
        )
    return Remarks([note], warnings)


def accept(content: bytes | str, options: Options, encoding: dict[str, Any]) -> Accepted:
    """Take any text with a word in it, and say which words the model does not see."""
    text = content if isinstance(content, str) else content.decode("utf-8", errors="replace")
    found = words(text)
    if not found:
        raise DataError("The text has no words: write some.")
    read = found[: encoding["max_tokens"]]
    known = set(encoding["vocabulary"])
    unknown = list(dict.fromkeys(word for word in read if word not in known))
    notes = []
    if len(read) < len(found):
        notes.append(f"Only its first {len(read):,} of {len(found):,} words are read.")
    if unknown:
        few = ", ".join(f"“{word[:30]}”" for word in unknown[:5])
        rest = f" and {len(unknown) - 5:,} more" if len(unknown) > 5 else ""
        notes.append(f"The vocabulary of the training texts lacks {few}{rest}.")
    return Accepted({"input": text, "label": 0, "id": "yours"}, options, notes)


def prepare(batch: Batch, encoding: dict[str, Any]) -> Batch:
    """Return the batch as it is: the model takes token ids."""
    return batch


def augment(batch: Batch, names: Sequence[str], generator: torch.Generator) -> Batch:
    """Raise SpecError for any name: there are no augmentations for text."""
    if names:
        raise SpecError(f"augmentations: {names[0]!r} is not known; text classification has none.")
    return batch


TASK = Task(
    name="text-classification",
    views=("text",),
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
    summarize=classification.summarize,
    outputs=classification.OUTPUTS,
)
