"""Text classification: words or a tokenizer's tokens, cross entropy, the margin as model output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.data.tokens import TOKENIZER, check_text, tokenize, tokenize_rows
from engine.data.words import words
from engine.store.errors import DataError, SpecError
from engine.tasks import Accepted, Encoded, Given, Remarks, Task, classification
from engine.tasks.text_options import Options, choice_of
from engine.tasks.tokenizers import plan_tokens

if TYPE_CHECKING:
    from datasets import Dataset

    from engine.attribution.trak.plan import Batch

PADDING, UNKNOWN = 0, 1
_SPECIAL = ["<padding>", "<unknown>"]
_MANY_UNKNOWN = 0.2
"""From this share of unknown words in the test texts on, the data get a warning."""


_MANY_CUT = 0.2
"""From this share of texts that are cut on, the data get a warning."""


def plan_encoding(rows: Dataset, options: Options, classes: Sequence[str]) -> dict[str, Any]:
    """Build the vocabulary of the training texts, or take the one of a tokenizer.

    Returns:
        `max_tokens`: tokens per text, at most as many as the longest training text has.
        `vocabulary` for words: padding, unknown, then the words by frequency, then alphabetically;
        a word's position is its token id.
        For tokenizers: see `engine.tasks.tokenizers.plan_tokens`.

    Raises:
        DataError: A row has no text, or a text without words.
        SpecError: The tokenizer cannot be used.
    """
    choice = choice_of(options)
    if choice.kind != "words":
        return plan_tokens(choice, options, _Texts(rows))
    counts: Counter[str] = Counter()
    longest = 1
    for block in _Texts(rows):
        for text, id_ in block:
            found = _words_of(text, id_)
            longest = max(longest, len(found))
            counts.update(found)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[: options.max_vocabulary]
    return {"vocabulary": _SPECIAL + frequent, "max_tokens": min(longest, options.max_tokens)}


class _Texts:
    """The texts of a split with their ids, in blocks, as often as they are asked for."""

    def __init__(self, rows: Dataset) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[list[tuple[str, str]]]:
        for chunk in self._rows.select_columns(["input", "id"]).iter(1024):
            block = list(zip(chunk["input"], chunk["id"], strict=True))
            for text, id_ in block:
                check_text(text, id_)
            yield block


def _words_of(text: Any, id_: str) -> list[str]:
    check_text(text, id_)
    found_words = words(text)
    if not found_words:
        raise DataError(f"example {id_!r}: the text {text[:40]!r} has no words. Remove the row.")
    return found_words


def encode(rows: Sequence[dict[str, Any]], options: Options, encoding: dict[str, Any]) -> Encoded:
    """Turn texts into token ids [rows, max_tokens], padded, and int64 `label` [rows].

    Words are int64 `input`; a tokenizer's tokens are int32 `input_ids`, with int32 `length` [rows],
    the tokens of the whole text, whether they are read or not.
    """
    width = encoding["max_tokens"]
    if TOKENIZER in encoding:
        found = tokenize_rows([(row["input"], row["id"]) for row in rows], encoding)
        ids = np.full((len(rows), width), encoding["padding"], np.int32)
        for tokens, target in zip(found, ids, strict=True):
            target[: len(tokens.ids)] = tokens.ids
        lengths = np.array([tokens.total for tokens in found], np.int32)
        arrays = {"input_ids": ids, "length": lengths}
    else:
        token = {word: i for i, word in enumerate(encoding["vocabulary"])}
        ids = np.full((len(rows), width), PADDING, np.int64)
        for row, target in zip(rows, ids, strict=True):
            known = _words_of(row["input"], row["id"])[:width]
            target[: len(known)] = [token.get(word, UNKNOWN) for word in known]
        arrays = {"input": ids}
    return Encoded(
        {**arrays, "label": classification.label_array(rows)},
        {"text": [row["input"] for row in rows]},
    )


def remarks(
    rows: Dataset,
    encoding: dict[str, Any],
    arrays: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
) -> Remarks:
    """The share of the test texts' words that the vocabulary lacks, and of texts that are cut."""
    if TOKENIZER in encoding:
        return _remarks_on_tokens(encoding, arrays)
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


def _remarks_on_tokens(
    encoding: dict[str, Any], arrays: Mapping[str, Sequence[Mapping[str, np.ndarray]]]
) -> Remarks:
    read = unknown = 0
    longest, most = 0, encoding["max_tokens"]
    cut: dict[str, float] = {}
    for split, shards in arrays.items():
        lengths = np.concatenate([shard["length"] for shard in shards])
        cut[split] = float((lengths > most).mean())
        longest = max(longest, int(lengths.max()))
    for shard in arrays["test"]:
        there = np.arange(most) < np.minimum(shard["length"], most)[:, None]
        read += int(there.sum())
        if encoding["unknown"] is not None:
            unknown += int((there & (shard["input_ids"] == encoding["unknown"])).sum())
    notes = [f"{unknown / max(read, 1):.1%} of the tokens of the test texts are unknown."]
    warnings = []
    if unknown >= _MANY_UNKNOWN * read:
        warnings.append(
            f"{notes[0]} Models read all of them as one token: the tokenizer was made for other "
            "texts than these."
        )
    if max(cut.values()) > 0:
        shares = " and ".join(f"{share:.1%} of the {split}" for split, share in cut.items())
        notes.append(
            f"{shares} texts are cut: models read the first {most:,} tokens of a text, and the "
            f"longest has {longest:,}. Raise max_tokens under [task] if the model takes more."
        )
        if max(cut.values()) >= _MANY_CUT:
            warnings.append(notes[-1])
    return Remarks(notes, warnings)


def accept(given: Given, options: Options, encoding: dict[str, Any]) -> Accepted:
    """Take any text with a word in it, and say which words the model does not see."""
    text = given.get("text", "")
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    if TOKENIZER in encoding:
        return _accept_tokens(text, options, encoding)
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
        notes.append(f"The vocabulary of the training texts lacks {_few(unknown)}.")
    return Accepted({"input": text, "label": 0, "id": "yours"}, options, notes)


def _few(found: Sequence[str]) -> str:
    few = ", ".join(f"“{word[:30]}”" for word in found[:5])
    return few + (f" and {len(found) - 5:,} more" if len(found) > 5 else "")


def _accept_tokens(text: str, options: Options, encoding: dict[str, Any]) -> Accepted:
    (tokens,) = tokenize([text], encoding)
    if tokens.total <= tokens.special:
        raise DataError("The text is empty after tokenizing: write some words.")
    notes = []
    if tokens.total > len(tokens.ids):
        notes.append(f"Only its first {len(tokens.ids):,} of {tokens.total:,} tokens are read.")
    spans = zip(tokens.ids, tokens.spans, strict=True)
    unknown = [text[start:stop] for id_, (start, stop) in spans if id_ == encoding["unknown"]]
    if unknown:
        notes.append(f"The tokenizer does not know {_few(list(dict.fromkeys(unknown)))}.")
    return Accepted({"input": text, "label": 0, "id": "yours"}, options, notes)


def prepare(batch: Batch, encoding: dict[str, Any]) -> Batch:
    """Token ids, as the model takes them: those of a tokenizer as far as the batch's longest text
    goes, with the mask of what is no padding."""
    if TOKENIZER not in encoding:
        return batch
    lengths = batch["length"].clamp(max=encoding["max_tokens"])
    longest = int(lengths.max())
    mask = torch.arange(longest, device=lengths.device) < lengths[:, None]
    rest = {name: tensor for name, tensor in batch.items() if name not in ("input_ids", "length")}
    return {
        "input_ids": batch["input_ids"][:, :longest].to(torch.int64),
        "attention_mask": mask.to(torch.int64),
        **rest,
    }


def lengths(arrays: Mapping[str, np.ndarray], encoding: dict[str, Any]) -> np.ndarray | None:
    """How many tokens are read of each text; None for words, which are padded to one length."""
    if TOKENIZER not in encoding:
        return None
    found: np.ndarray = np.minimum(arrays["length"], encoding["max_tokens"])
    return found


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
    lengths=lengths,
    augment=augment,
    loss=classification.loss,
    width=len,
    record=classification.record,
    matched=classification.logits,
    summarize=classification.summarize,
    outputs=classification.OUTPUTS,
    choices=classification.CHOICES,
    make_output=classification.make_output,
)
