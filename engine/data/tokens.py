"""A text → the tokens that a study's models read: words of a vocabulary, or parts of words.

The encoding of a study of texts says which: it holds either the vocabulary of its words, or the
content of a tokenizer's `tokenizer.json`. So new texts can be read wherever the study is, without
the folder that the tokenizer came from. Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.data.words import word_spans
from engine.store.errors import DataError, SpecError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer"
"""Key of an encoding with a tokenizer: the content of its `tokenizer.json`."""
ARROW = " → "
"""Between source and target where both are shown as one text."""
NOTHING = "(nothing)"
"""What is shown of a model that ends its text at once."""
INSTALL = "pip install 'dataloupe[transformers]'"


@dataclass(frozen=True)
class Tokens:
    """What a model reads of one text.

    Attributes:
        ids: Token ids, special tokens such as [CLS] among them; at most `max_tokens`.
        spans: Where each token is in the text, (start, stop); special tokens have empty spans.
        total: How many tokens the text has in all, whether they are read or not.
        special: How many of `ids` are special tokens that the tokenizer adds.
    """

    ids: list[int]
    spans: list[tuple[int, int]]
    total: int
    special: int


def token_spans(text: str, encoding: dict[str, Any]) -> list[tuple[int, int]]:
    """Where each token that a model reads is in a text: (start, stop), in characters of the text.

    Span i belongs to position i of the model's input. Special tokens, such as [CLS], have empty
    spans. Tokens that are cut off, because the text is too long, have none.
    """
    if "prefix" in encoding:
        return _spans_of_pair(text, encoding)
    if TOKENIZER in encoding:
        return tokenize([text], encoding)[0].spans
    return word_spans(text)[: encoding["max_tokens"]]


def _spans_of_pair(text: str, encoding: dict[str, Any]) -> list[tuple[int, int]]:
    """Spans of a source's tokens, then of its target's, in `source → target`."""
    source, _, target = text.rpartition(ARROW)
    (read,), (answered,) = tokenize([source], encoding), target_tokens([target], encoding)
    behind, prefix = len(source) + len(ARROW), len(encoding["prefix"])
    shifted = [
        (behind + max(0, start - prefix), behind + max(0, stop - prefix))
        for start, stop in answered.spans
    ]
    return [*read.spans, *((a, b) if a < b else (0, 0) for a, b in shifted)]


def target_tokens(targets: Sequence[str], encoding: dict[str, Any]) -> list[Tokens]:
    """What a model of sequences reads of target texts: they end with their end token."""
    cut = {**encoding, "max_tokens": encoding["max_target_tokens"]}
    found = tokenize([encoding["prefix"] + target for target in targets], cut)
    return [_ended(tokens, encoding["end"], cut["max_tokens"]) for tokens in found]


def target_pieces(target: str, encoding: dict[str, Any]) -> list[str]:
    """The tokens of a target as people read them; its end is `end`."""
    made, (tokens,) = tokenizer_of(encoding), target_tokens([target], encoding)
    names = ["end" if id_ == encoding["end"] else made.id_to_token(id_) or "" for id_ in tokens.ids]
    return [name.strip("▁Ġ ") or "␣" for name in names]


def _ended(tokens: Tokens, end: int, most: int) -> Tokens:
    if end < 0 or (tokens.ids and tokens.ids[-1] == end):
        return tokens
    ids, spans = [*tokens.ids, end], [*tokens.spans, (0, 0)]
    return Tokens(ids[:most], spans[:most], tokens.total + 1, tokens.special)


def tokenize_rows(rows: Sequence[tuple[Any, str]], encoding: dict[str, Any]) -> list[Tokens]:
    """What a model reads of each text, given with its example's id.

    Raises:
        DataError: One is no text, or has no tokens.
    """
    for text, id_ in rows:
        check_text(text, id_)
    found = tokenize([text for text, _ in rows], encoding)
    for (text, id_), tokens in zip(rows, found, strict=True):
        if tokens.total <= tokens.special:
            raise DataError(
                f"example {id_!r}: the text {text[:40]!r} is empty after tokenizing. Remove the "
                "row."
            )
    return found


def check_text(text: Any, id_: str) -> None:
    """Raise DataError if an example's input is not a text."""
    if not isinstance(text, str):
        found = "nothing" if text is None else type(text).__name__
        raise DataError(
            f"example {id_!r}: a text was expected and {found} was found. "
            "Name the column of texts as `input` under [data]."
        )


def tokenize(texts: list[str], encoding: dict[str, Any]) -> list[Tokens]:
    """What a model reads of each text, for an encoding with a tokenizer."""
    most = encoding["max_tokens"]
    found = []
    for one in tokenizer_of(encoding).encode_batch(texts):
        total = len(one.ids) + sum(len(part.ids) - _special(part) for part in one.overflowing)
        found.append(Tokens(one.ids[:most], one.offsets[:most], total, _special(one)))
    return found


def _special(part: Any) -> int:
    return int(sum(part.special_tokens_mask))


def tokenizer_of(encoding: dict[str, Any]) -> Tokenizer:
    """The tokenizer of an encoding, which cuts texts to `max_tokens` as models were trained."""
    return _tokenizer(encoding[TOKENIZER], encoding["max_tokens"])


@lru_cache(maxsize=4)
def _tokenizer(content: str, most: int) -> Tokenizer:
    tokenizer: Tokenizer = tokenizers().Tokenizer.from_str(content)
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)
    return tokenizer


def tokenizers() -> Any:
    """The package `tokenizers`.

    Raises:
        SpecError: It is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise SpecError(
            f"this study's texts are read by a tokenizer, which needs the package tokenizers "
            f"({error}): `{INSTALL}`."
        ) from error
    return tokenizers
