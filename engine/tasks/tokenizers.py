"""Tokenizers: read from a model's folder, or learned from the training texts.

Either way a tokenizer becomes a part of the encoding, as the text of its `tokenizer.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.tokens import TOKENIZER, tokenizers
from engine.models.hf_folder import (
    CONFIG,
    has_tokenizer,
    read_config,
    reason_of,
    tokenizer_digest,
)
from engine.store.errors import SpecError
from engine.store.text import counted
from engine.tasks.text_options import Choice, Options, other_tokenizers

PADDING, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
_PAD, _END, _UNK = "<pad>", "<end>", "<unk>"
"""Of `train_pieces`."""
_LONGEST = 100_000
"""More tokens than any text: tokenizers without a limit have 10^30 as theirs."""


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer, ready to be stored.

    Attributes:
        content: The text of its tokenizer.json, without padding and truncation.
        padding: Id of the token that fills up short texts. Models do not read it.
        longest: The most tokens of a text that its model takes, as its settings say.
        end: Id of the token that ends a text; None if it has none.
    """

    content: str
    padding: int
    longest: int = _LONGEST
    end: int | None = None


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model's folder.

    Raises:
        SpecError: It is missing, damaged, or cannot be read without code of its own.
    """
    tokenizer_digest(folder)  # checks the files
    if (folder / CONFIG).is_file():
        read_config(folder)
    from engine.models.transformers_zoo import transformers

    library = transformers("a tokenizer")
    try:
        found = library.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a damaged file can raise anything
        reason = reason_of(error)
        raise SpecError(f"the tokenizer in {folder} cannot be read: {reason}.") from error
    backend = getattr(found, "backend_tokenizer", None)
    if backend is None:
        raise SpecError(
            f"the tokenizer in {folder} is a {type(found).__name__}, which has no tokenizer.json: "
            "save it with `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`."
        )
    padding = found.pad_token_id
    if padding is None:
        padding = found.eos_token_id or 0
    longest = min(int(found.model_max_length or _LONGEST), _LONGEST)
    return Tokenizer(_without_lengths(backend.to_str()), int(padding), longest, found.eos_token_id)


def same_tokenizer(first: str, second: str) -> bool:
    """Whether two tokenizers give the same tokens, whatever else their files say."""
    return bool(_canonical(first) == _canonical(second))


def _canonical(content: str) -> Any:
    found = json.loads(content)
    return {key: value for key, value in found.items() if key not in ("version", "decoder")}


def _without_lengths(content: str) -> str:
    found = json.loads(content) | {"truncation": None, "padding": None}
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def train_wordpiece(texts: Iterable[str], size: int) -> Tokenizer:
    """A WordPiece tokenizer as BERT's (lower case, no accents), learned from texts.

    Args:
        texts: They decide alone: the same ones give the same bytes.
        size: Tokens of the vocabulary, the five special ones and all single characters included.
    """
    library = tokenizers()
    made = library.Tokenizer(library.models.WordPiece(unk_token=UNKNOWN))
    made.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    special = [PADDING, UNKNOWN, START, END, MASK]
    blocks = list(texts)
    # The trainer numbers what continues a word in the order of a hash table, which is random, and
    # breaks ties by these numbers. Tokens that are given have the numbers of their order.
    inner = sorted(_inner_characters(made, blocks))
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[*special, *inner], show_progress=False
    )
    made.train_from_iterator(blocks, trainer)
    made.post_processor = library.processors.TemplateProcessing(
        single=f"{START} $A {END}",
        pair=f"{START} $A {END} $B:1 {END}:1",
        special_tokens=[(token, special.index(token)) for token in (START, END)],
    )
    content = json.loads(made.to_str())
    content["added_tokens"] = [
        token for token in content["added_tokens"] if token["content"] in special
    ]
    return Tokenizer(_without_lengths(json.dumps(content)), special.index(PADDING))


def _inner_characters(tokenizer: Any, texts: Iterable[str]) -> set[str]:
    """Tokens of the characters that continue a word of the texts."""
    found: set[str] = set()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
            found.update(word[1:])
    return {f"##{character}" for character in found}


def train_pieces(texts: Iterable[str], size: int) -> Tokenizer:
    """A tokenizer whose pieces keep case and spaces, so that text can be made of them again,
    learned from texts by byte-pair encoding.

    Args:
        texts: They decide alone: the same ones give the same bytes.
        size: Tokens of the vocabulary, the three special ones and all single characters included.
    """
    library = tokenizers()
    special = [_PAD, _END, _UNK]
    made = library.Tokenizer(library.models.BPE(unk_token=_UNK))
    made.normalizer = library.normalizers.NFKC()
    # Without the second, "Chile" and "Chile?" would have no piece in common.
    made.pre_tokenizer = library.pre_tokenizers.Sequence(
        [library.pre_tokenizers.Metaspace(), library.pre_tokenizers.Punctuation()]
    )
    made.decoder = library.decoders.Metaspace()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    end = special.index(_END)
    made.post_processor = library.processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, end)]
    )
    return Tokenizer(_without_lengths(made.to_str()), special.index(_PAD), end=end)


def plan_tokens(
    choice: Choice, options: Options, texts: Iterable[list[tuple[str, str]]]
) -> dict[str, Any]:
    """The encoding of texts by a tokenizer.

    Args:
        choice: Not `words`.
        texts: Blocks of the training texts with their ids, which can be gone through repeatedly.

    Raises:
        SpecError: The tokenizer or a model's folder cannot be used, or they do not fit together.
        DataError: A text has no tokens.
    """
    from engine.data.tokens import tokenize_rows

    if choice.folder is None:
        tokenizer = train_wordpiece(
            (text for block in texts for text, _ in block), options.max_vocabulary
        )
    else:
        tokenizer = read_tokenizer(choice.folder)
    made = tokenizers().Tokenizer.from_str(tokenizer.content)
    vocabulary = made.get_vocab(with_added_tokens=True)
    encoding: dict[str, Any] = {
        "max_tokens": min(options.max_tokens, tokenizer.longest, *_limits(choice, vocabulary)),
        TOKENIZER: tokenizer.content,
        "token_ids": max(vocabulary.values()) + 1,
        "padding": tokenizer.padding,
        "unknown": unknown_token(tokenizer.content, vocabulary),
    }
    added = made.num_special_tokens_to_add(False)
    if encoding["max_tokens"] <= added:
        raise SpecError(
            f"task.max_tokens = {options.max_tokens}: the tokenizer adds "
            f"{counted(added, 'special token')} to each text, so no word would be read. Take more."
        )
    for other in other_tokenizers(choice):
        if not same_tokenizer(read_tokenizer(other).content, tokenizer.content):
            raise SpecError(differing(other, choice.name))
    longest = max(one.total for block in texts for one in tokenize_rows(block, encoding))
    encoding["max_tokens"] = min(longest, encoding["max_tokens"])
    if choice.folder is not None:
        encoding["tokenizer_files"] = tokenizer_digest(choice.folder)
    start = made.encode("").ids[: encoding["max_tokens"]] or [tokenizer.padding]
    shape = [encoding["max_tokens"]]
    encoding["inputs"] = {
        "input_ids": prepared_input(shape, start, tokenizer.padding),
        "attention_mask": prepared_input(shape, [1] * len(start), 0),
    }
    return encoding


def prepared_input(shape: list[int], start: list[int], rest: int) -> dict[str, Any]:
    """An input of whole numbers, as `engine.models.ready.probe` reads it."""
    return {"shape": shape, "dtype": "int64", "start": start, "rest": rest}


def _limits(choice: Choice, vocabulary: dict[str, int]) -> Iterator[int]:
    """The most tokens of a text that each model takes."""
    from engine.models.transformers_zoo import check_vocabulary, longest_input

    for folder in choice.models:
        config = read_config(folder)
        check_vocabulary(config, max(vocabulary.values()) + 1, str(folder))
        yield longest_input(config, str(folder))


def unknown_token(content: str, vocabulary: dict[str, int]) -> int | None:
    """Id of the token that stands for what a tokenizer does not know; None if there is none."""
    model = json.loads(content)["model"]
    found = model.get("unk_id")
    return found if found is not None else vocabulary.get(model.get("unk_token") or "")


def differing(folder: Path, chosen: str) -> str:
    """What to say of a model whose tokenizer is not the study's."""
    return (
        f"the tokenizer in {folder} differs from the study's ({chosen}): one study reads its texts "
        "in one way. Take models of one tokenizer, or a study for each."
    )


def check_tokenizer(folder: Path, encoding: dict[str, Any], what: str) -> None:
    """Check that a model's own tokenizer, if its folder has one, is that of the study's texts.

    Raises:
        SpecError: It differs.
    """
    if has_tokenizer(folder):
        own = read_tokenizer(folder)
        if not same_tokenizer(own.content, encoding[TOKENIZER]):
            raise SpecError(differing(folder, what))
