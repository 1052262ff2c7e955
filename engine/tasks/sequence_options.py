"""`[task]` of a study of source and target texts, and the tokenizer that it comes to.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from engine.store.spec import AlgorithmSpec
from engine.tasks.text_options import Choice, choose_tokenizer, folder_digest, model_names

PIECES: Final = "pieces"


class Options(BaseModel):
    """`[task]` of a study of source and target texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Annotated[str, Field(min_length=1)] = "auto"
    """Column of target texts; `auto` takes one with a usual name such as `target` or `answer`. The
    column of source texts is `input` under [data]."""
    tokenizer: Annotated[str, Field(min_length=1)] = "auto"
    """`pieces`: parts of words, learned from the training texts; else the folder or hub name of a
    model of transformers, whose tokenizer it is. `auto` is the one of the study's `transformers:`
    algorithms, else `pieces`."""
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 128
    """The most tokens that are read of each source; the rest is ignored."""
    max_target_tokens: Annotated[int, Field(ge=1, le=100_000)] = 64
    """The most tokens of each target."""
    max_vocabulary: Annotated[int, Field(ge=4, le=1_000_000)] = 8_000
    """How many tokens `pieces` has."""
    beams: Annotated[int, Field(ge=1, le=256)] = 1
    """Partial texts that are kept where a text other than the target is generated."""
    _choice: Choice | None = PrivateAttr(default=None)
    """What `tokenizer` comes to in a study; None before `settle`."""

    @property
    def choice(self) -> Choice:
        """The tokenizer of options that depend on nothing, or are settled."""
        return self._choice or Choice(PIECES, PIECES)


def settle(options: Options, algorithms: Mapping[str, AlgorithmSpec], study: Path) -> Options:
    """The options with the tokenizer that they come to for these algorithms.

    Raises:
        SpecError: A folder is missing or has no tokenizer.
    """
    settled = options.model_copy()
    settled._choice = choose_tokenizer(
        _chosen(options.tokenizer, algorithms), [PIECES], algorithms, study
    )
    return settled


def outside(
    keys: Mapping[str, Any],
    algorithms: Mapping[str, AlgorithmSpec],
    study: Path,
    known: Mapping[str, Any] | None,
) -> list[str]:
    """What the encoding depends on beside the keys of `[task]`: see `text_options.outside`."""
    chosen = _chosen(str(keys.get("tokenizer", "auto")), algorithms)
    if chosen == PIECES:
        return []
    return [folder_digest(chosen, study, known)]


def computed(encoding: Mapping[str, Any]) -> list[str]:
    """Texts are padded, so they come in batches of about one length."""
    return ["by length"]


def _chosen(tokenizer: str, algorithms: Mapping[str, AlgorithmSpec]) -> str:
    if tokenizer != "auto":
        return tokenizer
    return next(iter(model_names(algorithms)), PIECES)
