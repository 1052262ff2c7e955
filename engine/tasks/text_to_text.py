"""Source and target texts: a target is generated from its source, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engine.data.text_columns import find_text_column
from engine.data.tokens import (
    ARROW,
    NOTHING,
    TOKENIZER,
    Tokens,
    target_tokens,
    tokenize,
    tokenizer_of,
    tokenizers,
)
from engine.models.hf_folder import read_config, tokenizer_digest
from engine.models.pairs import ANSWER
from engine.models.sequences import SEQUENCES
from engine.store.errors import DataError, SpecError
from engine.store.text import counted
from engine.tasks import Accepted, Encoded, Given, Remarks, Task, sequences
from engine.tasks.sequence_options import Options
from engine.tasks.text_options import Choice, other_tokenizers
from engine.tasks.tokenizers import (
    Tokenizer,
    differing,
    prepared_input,
    read_tokenizer,
    same_tokenizer,
    train_pieces,
    unknown_token,
)

if TYPE_CHECKING:
    from datasets import Dataset

    from engine.attribution.trak.plan import Batch

IDS, LENGTH = "input_ids", "length"
TARGET_IDS, TARGET_LENGTH = "target_ids", "target_length"
_USUAL = (
    *("target", "targets", "answer", "answers", "completion", "response", "output", "outputs"),
    *("summary", "translation", "tgt"),
)
"""Usual names of columns of targets, the best first."""
_MANY_CUT = 0.2
"""From this share of texts that are cut on, the data get a warning."""


# --- texts ----------------------------------------------------------------------------------------


def _text(value: Any, id_: str, what: str, where: str) -> str:
    if not isinstance(value, str):
        found = "nothing" if value is None else type(value).__name__
        raise DataError(
            f"example {id_!r}: a {what} was expected and {found} was found. Name the column of "
            f"{what}s as {where}, or remove the row."
        )
    if not value.strip():
        raise DataError(f"example {id_!r}: the {what} is empty. Write one, or remove the row.")
    return value


def _pairs(rows: Sequence[Mapping[str, Any]], column: str) -> list[tuple[str, str]]:
    """Source and target of each row."""
    return [
        (
            _text(row["input"], row["id"], "source", "`input` under [data]"),
            _text(row.get(column), row["id"], "target", "`target` under [task]"),
        )
        for row in rows
    ]


def _blocks(rows: Dataset, column: str) -> Iterator[list[tuple[str, str]]]:
    for chunk in rows.select_columns(["input", column, "id"]).iter(1024):
        some = [
            dict(zip(chunk, values, strict=True)) for values in zip(*chunk.values(), strict=True)
        ]
        yield _pairs(some, column)


# --- encoding -------------------------------------------------------------------------------------


def plan_encoding(rows: Dataset, options: Options, classes: Sequence[str]) -> dict[str, Any]:
    """The tokenizer of sources and targets, and how long they are.

    Returns:
        `max_tokens` and `max_target_tokens`: tokens of a source and of a target, at most as many as
        the longest of the training texts has. `tokenizer`, `token_ids`, `padding`, `unknown`, and
        `end`, the token that ends a target. `beams`, if there are several. `prefix`: what stands
        before a target, for models that read it behind the source. `target`: the column. `answer`
        and `inputs`, for models.

    Raises:
        DataError: A source or target is missing or empty.
        SpecError: The tokenizer or a model's folder cannot be used, or they do not fit together.
    """
    column, choice = find_text_column(rows, options.target, "target", _USUAL), options.choice
    tokenizer = _tokenizer(choice, options, rows, column)
    made = tokenizers().Tokenizer.from_str(tokenizer.content)
    vocabulary = made.get_vocab(with_added_tokens=True)
    encoding: dict[str, Any] = {
        "max_tokens": min(options.max_tokens, tokenizer.longest),
        "max_target_tokens": min(options.max_target_tokens, tokenizer.longest),
        TOKENIZER: tokenizer.content,
        "token_ids": max(vocabulary.values()) + 1,
        "padding": tokenizer.padding,
        "unknown": unknown_token(tokenizer.content, vocabulary),
        "end": -1 if tokenizer.end is None else tokenizer.end,
        "prefix": _prefix(choice),
        "target": column,
        ANSWER: SEQUENCES,
        **({"beams": options.beams} if options.beams > 1 else {}),
    }
    longest = [1, 1]
    for block in _blocks(rows, column):
        for side, found in enumerate(_tokens(block, encoding)):
            longest[side] = max(longest[side], *(one.total for one in found))
    for side, key in enumerate(("max_tokens", "max_target_tokens")):
        encoding[key] = min(longest[side], encoding[key])
    if choice.folder is not None:
        encoding["tokenizer_files"] = tokenizer_digest(choice.folder)
    for other in other_tokenizers(choice):
        if not same_tokenizer(read_tokenizer(other).content, tokenizer.content):
            raise SpecError(differing(other, choice.name))
    sides = {IDS: "max_tokens", TARGET_IDS: "max_target_tokens"}
    masks = {IDS: "attention_mask", TARGET_IDS: "target_mask"}
    encoding["inputs"] = {
        name: prepared_input([encoding[key]], start, rest)
        for side, key in sides.items()
        for name, start, rest in ((side, [0], tokenizer.padding), (masks[side], [1], 0))
    }
    return encoding


def _tokenizer(choice: Choice, options: Options, rows: Dataset, column: str) -> Tokenizer:
    if choice.folder is not None:
        return read_tokenizer(choice.folder)
    texts = (text for block in _blocks(rows, column) for pair in block for text in pair)
    return train_pieces(texts, options.max_vocabulary)


def _prefix(choice: Choice) -> str:
    """A space, where a model reads source and target as one text."""
    from engine.models.transformers_zoo import reads_apart

    apart = {reads_apart(read_config(folder), str(folder)) for folder in choice.models}
    if len(apart) > 1:
        raise SpecError(
            "One study has models of one kind: with an encoder and a decoder, such as T5, or with "
            "a decoder alone, such as GPT-2. Make a study for each."
        )
    return " " if False in apart else ""


def _tokens(
    pairs: Sequence[tuple[str, str]], encoding: dict[str, Any]
) -> tuple[list[Tokens], list[Tokens]]:
    """What models read of sources and of targets; targets end with their end token."""
    sources = tokenize([source for source, _ in pairs], encoding)
    return sources, target_tokens([target for _, target in pairs], encoding)


def encode(rows: Sequence[dict[str, Any]], options: Options, encoding: dict[str, Any]) -> Encoded:
    """Sources and targets as token ids.

    int32 `input_ids` [rows, max_tokens] and `target_ids` [rows, max_target_tokens], padded, and
    `length` and `target_length` [rows], the tokens of the whole texts. Of a source alone, which
    only `accept` gives, there are no arrays of targets.
    """
    if encoding["target"] not in rows[0]:
        (row,) = rows
        source = _text(row["input"], row["id"], "source", "`input` under [data]")
        return Encoded(_sources(rows, tokenize([source], encoding), encoding), {"text": [source]})
    pairs = _pairs(rows, encoding["target"])
    sources, targets = _tokens(pairs, encoding)
    arrays = {**_sources(rows, sources, encoding), **_targets(targets, encoding)}
    columns = {
        "text": [source + ARROW + target for source, target in pairs],
        "source": [source for source, _ in pairs],
        "target": [target for _, target in pairs],
    }
    return Encoded(arrays, columns)


def _sources(
    rows: Sequence[Mapping[str, Any]], found: Sequence[Tokens], encoding: dict[str, Any]
) -> dict[str, np.ndarray]:
    for row, tokens in zip(rows, found, strict=True):
        if tokens.total <= tokens.special:
            raise DataError(
                f"example {row['id']!r}: the source is empty after tokenizing. Remove the row."
            )
    return {
        IDS: _padded(found, encoding["max_tokens"], encoding["padding"]),
        LENGTH: np.array([tokens.total for tokens in found], np.int32),
    }


def _targets(found: Sequence[Tokens], encoding: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        TARGET_IDS: _padded(found, encoding["max_target_tokens"], encoding["padding"]),
        TARGET_LENGTH: np.array([tokens.total for tokens in found], np.int32),
    }


def unanswered(encoding: dict[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of a target that ends at once; where a text has no end, of one of padding."""
    end = encoding["padding"] if encoding["end"] < 0 else encoding["end"]
    ids = np.full((1, encoding["max_target_tokens"]), encoding["padding"], np.int32)
    ids[0, 0] = end
    return {TARGET_IDS: ids, TARGET_LENGTH: np.ones(1, np.int32)}


def _padded(found: Sequence[Tokens], width: int, padding: int) -> np.ndarray:
    ids = np.full((len(found), width), padding, np.int32)
    for tokens, row in zip(found, ids, strict=True):
        row[: len(tokens.ids)] = tokens.ids
    return ids


def prepare(batch: Batch, encoding: dict[str, Any]) -> Batch:
    """The inputs of a model of sequences, as far as the batch's longest source and target go, and
    the labels of targets, with room for the longest of all."""
    masks = {}
    for ids, length in ((IDS, LENGTH), (TARGET_IDS, TARGET_LENGTH)):
        width = batch[ids].shape[1]
        lengths = batch[length].clamp(max=width)
        masks[ids] = torch.arange(width, device=lengths.device) < lengths[:, None]
    found = {}
    for ids, mask in ((IDS, "attention_mask"), (TARGET_IDS, "target_mask")):
        longest = int(masks[ids].sum(1).max())
        found[ids] = batch[ids][:, :longest].to(torch.int64)
        found[mask] = masks[ids][:, :longest].to(torch.int64)
    labels = batch[TARGET_IDS].to(torch.int64)
    if "beams" in encoding:
        found[sequences.BEAMS] = torch.full_like(labels[:, 0], encoding["beams"])
    return {
        **found,
        "label": labels.masked_fill(~masks[TARGET_IDS], sequences.IGNORED),
        sequences.END: torch.full_like(labels[:, 0], encoding["end"]),
    }


def lengths(arrays: Mapping[str, np.ndarray], encoding: dict[str, Any]) -> np.ndarray:
    """How many tokens are read of each source and target together."""
    source = np.minimum(arrays[LENGTH], encoding["max_tokens"])
    found: np.ndarray = source + np.minimum(arrays[TARGET_LENGTH], encoding["max_target_tokens"])
    return found


def augment(batch: Batch, names: Sequence[str], generator: torch.Generator) -> Batch:
    """Raise SpecError for any name: there are no augmentations for text."""
    if names:
        raise SpecError(f"augmentations: {names[0]!r} is not known; texts have none.")
    return batch


def in_words(ids: np.ndarray, encoding: dict[str, Any]) -> list[str]:
    """The texts of token ids `[n, tokens]`; −1 stands for none, and a text without any is named."""
    rows = [[token for token in row if token >= 0] for row in np.asarray(ids).tolist()]
    found = tokenizer_of(encoding).decode_batch(rows, skip_special_tokens=True)
    return [text.strip() or NOTHING for text in found]


# --- examples from outside, remarks ---------------------------------------------------------------


def accept(given: Given, options: Options, encoding: dict[str, Any]) -> Accepted:
    """Take a source and a target with an arrow (→ or =>) or a line break between them, or a source
    alone."""
    text = given.get("text", "")
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    for between in ("→", "=>", "\n"):
        source, found, target = (part.strip() for part in text.strip().partition(between))
        if found or between in text.strip():
            break
    if not source or (found and not target):
        raise DataError("Write a source, or source => target.")
    sources, targets = _tokens([(source, target)], encoding)
    notes = [
        f"Only the first {len(one.ids):,} of {one.total:,} tokens of the {what} are read."
        for what, one in (("source", sources[0]), ("target", targets[0]))
        if one.total > len(one.ids)
    ]
    answer = {encoding["target"]: target} if target else {}
    return Accepted({"input": source, **answer, "label": 0, "id": "yours"}, options, notes)


def remarks(
    rows: Dataset,
    encoding: dict[str, Any],
    arrays: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
) -> Remarks:
    """Which column is the target, how many texts are cut, and which test pairs are known."""
    notes = [f"Targets are the column {encoding['target']!r}."]
    warnings = []
    whole = {
        split: {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
        for split, shards in arrays.items()
    }
    for what, length, key in (
        ("source", LENGTH, "max_tokens"),
        ("target", TARGET_LENGTH, "max_target_tokens"),
    ):
        most = encoding[key]
        cut = {split: float((found[length] > most).mean()) for split, found in whole.items()}
        if max(cut.values()) > 0:
            shares = " and ".join(f"{share:.1%} of the {split}" for split, share in cut.items())
            longest = max(int(found[length].max()) for found in whole.values())
            notes.append(
                f"{shares} {what}s are cut: models read the first {most:,} tokens, and the longest "
                f"has {longest:,}. Raise {key} under [task] if the model takes more."
            )
            if max(cut.values()) >= _MANY_CUT:
                warnings.append(notes[-1])
    same = {split: _contents(found) for split, found in whole.items()}
    known = set(same["train"])
    if leaked := sum(content in known for content in same["test"]):
        warnings.append(
            f"{counted(leaked, 'test example')} of {len(same['test']):,} "
            f"{'occurs' if leaked == 1 else 'occur'} in the training split, too."
        )
    return Remarks(notes, warnings)


def _contents(found: Mapping[str, np.ndarray]) -> list[bytes]:
    joined = np.concatenate([found[IDS], found[TARGET_IDS]], axis=1)
    return [row.tobytes() for row in joined]


TASK = Task(
    name="text-to-text",
    views=("text",),
    labels="none",
    outcomes="exact",
    options=Options,
    plan_encoding=plan_encoding,
    encode=encode,
    accept=accept,
    remarks=remarks,
    prepare=prepare,
    lengths=lengths,
    augment=augment,
    loss=sequences.loss,
    width=lambda classes: 1,
    record=sequences.record,
    matched=sequences.matched_log_odds,
    summarize=sequences.summarize,
    in_words=in_words,
    unanswered=unanswered,
    outputs=sequences.OUTPUTS,
    choices=sequences.CHOICES,
    make_output=sequences.make_output,
)
