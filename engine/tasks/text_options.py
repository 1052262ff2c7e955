"""`[task]` of a study of texts, and the tokenizer that it comes to.

`tokenizer = "auto"` depends on the study's algorithms, and a folder on the files in it. `settle`
finds that out for a build, `outside` names it for fingerprints. Importing this module imports no
torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from engine.data.tokens import TOKENIZER
from engine.models.hf_folder import find_folder, has_tokenizer, name_of, tokenizer_digest
from engine.store.errors import SpecError
from engine.store.spec import AlgorithmSpec

WORDPIECE_ARCHITECTURES = ("bert-small",)
"""Built-in architectures that read parts of words."""

LEARNED = ("words", "wordpiece")
"""Tokenizers that are learned from the training texts; any other name is a folder's."""


@dataclass(frozen=True)
class Choice:
    """The tokenizer of a study.

    Attributes:
        name: As in study.toml, for messages.
        folder: The folder of its files; None unless `kind` is `folder`.
        models: Folders of the models that will read its tokens.
    """

    kind: Literal["words", "wordpiece", "pieces", "folder"]
    name: str = ""
    folder: Path | None = None
    models: tuple[Path, ...] = ()


class Options(BaseModel):
    """`[task]` of a study of texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokenizer: Annotated[str, Field(min_length=1)] = "auto"
    """`words`: the words of the training texts; `wordpiece`: parts of words, learned from the
    training texts; else the folder or hub name of a model of transformers, whose tokenizer it is.
    `auto` is the one of the study's `transformers:` algorithms, else `wordpiece` for `bert-small`,
    else `words`."""
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 128
    """The most words or tokens that are read of each text; the rest is ignored."""
    max_vocabulary: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """How many words the vocabulary of `words` has, the most frequent of the training texts, or how
    many tokens that of `wordpiece`."""
    _choice: Choice | None = PrivateAttr(default=None)
    """What `tokenizer` comes to in a study; None before `settle`."""


def settle(options: Options, algorithms: Mapping[str, AlgorithmSpec], study: Path) -> Options:
    """The options with the tokenizer that they come to for these algorithms.

    Raises:
        SpecError: A folder is missing or has no tokenizer.
    """
    settled = options.model_copy()
    settled._choice = choose_tokenizer(
        _chosen(options.tokenizer, algorithms), LEARNED, algorithms, study
    )
    return settled


def choose_tokenizer(
    chosen: str, learned: Sequence[str], algorithms: Mapping[str, AlgorithmSpec], study: Path
) -> Choice:
    """The tokenizer of this name: one of those that are learned from the training texts, or that of
    a folder.

    Raises:
        SpecError: The folder is missing or has no tokenizer.
    """
    models = tuple(find_folder(name, study) for name in model_names(algorithms))
    if chosen in learned:
        kind: Any = chosen
        return Choice(kind, chosen, None, models)
    folder = find_folder(chosen, study)
    tokenizer_digest(folder)
    return Choice("folder", chosen, folder, models)


def choice_of(options: Options) -> Choice:
    """The tokenizer of options; they need not be settled if it depends on nothing."""
    return options._choice or choice_of(settle(options, {}, Path()))


def outside(
    keys: Mapping[str, Any],
    algorithms: Mapping[str, AlgorithmSpec],
    study: Path,
    known: Mapping[str, Any] | None,
) -> list[str]:
    """What the encoding depends on beside the keys of `[task]`; empty if on nothing.

    Args:
        keys: The keys as in study.toml.
        known: The encoding of the data as built, which stands for a folder that is not there any
            more; None before.
    """
    chosen = _chosen(str(keys.get("tokenizer", "auto")), algorithms)
    if chosen == "words" or chosen == keys.get("tokenizer") == "wordpiece":
        return []
    if chosen == "wordpiece":
        return [chosen]
    return [folder_digest(chosen, study, known)]


def folder_digest(chosen: str, study: Path, known: Mapping[str, Any] | None) -> str:
    """Digest of a folder's tokenizer; as in the known encoding if the folder is not there."""
    try:
        return tokenizer_digest(find_folder(chosen, study))
    except SpecError:
        if known is None or "tokenizer_files" not in known:
            raise
        return str(known["tokenizer_files"])


def computed(encoding: Mapping[str, Any]) -> list[str]:
    """Tokens of a tokenizer are padded, so texts come in batches of about one length."""
    return ["by length"] if TOKENIZER in encoding else []


def _chosen(tokenizer: str, algorithms: Mapping[str, AlgorithmSpec]) -> str:
    if tokenizer != "auto":
        return tokenizer
    if models := model_names(algorithms):
        return models[0]
    built_in = {spec.architecture for spec in algorithms.values()}
    return "wordpiece" if built_in & {*WORDPIECE_ARCHITECTURES} else "words"


def model_names(algorithms: Mapping[str, AlgorithmSpec]) -> list[str]:
    """What the study's algorithms name as `transformers:NAME`, each once."""
    names = [name_of(spec.architecture) for spec in algorithms.values()]
    return list(dict.fromkeys(name for name in names if name))


def other_tokenizers(choice: Choice) -> list[Path]:
    """Folders of models with a tokenizer of their own, beside the one that is chosen."""
    return [path for path in choice.models if path != choice.folder and has_tokenizer(path)]
