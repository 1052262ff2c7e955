"""`[task]` of a study of pictures with captions, and what it comes to.

Beside the tokenizer, a folder of CLIP decides the size of pictures and their normalization, where
the study says nothing of them. Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from engine.models.hf_folder import find_folder, name_of, preprocessing_of, read_config
from engine.store import fingerprint_of
from engine.store.errors import SpecError
from engine.store.spec import AlgorithmSpec
from engine.tasks import text_options
from engine.tasks.picture_options import Side, Statistic
from engine.tasks.text_options import Choice

ALIKE = "picture or caption"
"""What two pairs share so that neither is a wrong answer for the other: in the loss, outputs and
retrieval. A part of the encoding, because models depend on it."""


class Options(BaseModel):
    """`[task]` of a study of pictures with captions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    caption: Annotated[str, Field(min_length=1)] = "auto"
    """Column of captions; `auto` takes one with a usual name such as `caption` or `text`, else the
    only one of texts. Of a list of captions the first is taken."""
    negatives: Annotated[int, Field(ge=2, le=1_000_000)] = 2048
    """With how many training pairs, drawn at random for each model, outputs compare a pair."""
    gallery: Annotated[int, Field(ge=2, le=100_000)] = 1000
    """Among how many of the test pairs, from the first, a picture or a caption is looked for."""
    image_size: Side | tuple[Side, Side] | None = None
    resize: Literal["squash", "crop", "pad"] = "squash"
    color: Literal["keep", "grey", "rgb"] = "keep"
    mean: Statistic = "auto"
    std: Statistic = "auto"
    value_range: tuple[float, float] | Literal["auto"] = "auto"
    tokenizer: Annotated[str, Field(min_length=1)] = "auto"
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 77
    max_vocabulary: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    _choice: Choice | None = PrivateAttr(default=None)
    """What `tokenizer` comes to in a study; None before `settle`."""
    _from_folder: tuple[str, ...] = PrivateAttr(default=())
    """What was taken from a model's folder, as sentences."""
    _expected: tuple[str, ...] = PrivateAttr(default=())
    """Digest of what that folder expects of pictures."""

    def of_pictures(self) -> dict[str, Any]:
        """The keys of a task of pictures."""
        names = ("image_size", "resize", "color", "mean", "std", "value_range")
        return {name: getattr(self, name) for name in names}

    def of_texts(self) -> text_options.Options:
        """The options of a task of texts, settled as far as these are."""
        names = ("tokenizer", "max_tokens", "max_vocabulary")
        found = text_options.Options(**{name: getattr(self, name) for name in names})
        found._choice = self._choice
        return found


def settle(options: Options, algorithms: Mapping[str, AlgorithmSpec], study: Path) -> Options:
    """The options with what the study's algorithms and their folders decide.

    Raises:
        SpecError: A folder is missing, has no tokenizer, or cannot be used.
    """
    texts = text_options.settle(options.of_texts(), algorithms, study)
    expected = _expected(algorithms, study)
    changes, notes = _changes(options, expected)
    settled = options.model_copy(update=changes)
    settled._choice, settled._from_folder = texts._choice, tuple(notes)
    settled._expected = tuple(_digest(expected))
    return settled


def outside(
    keys: Mapping[str, Any],
    algorithms: Mapping[str, AlgorithmSpec],
    study: Path,
    known: Mapping[str, Any] | None,
) -> list[str]:
    """What the encoding depends on beside the keys of `[task]`: see `text_options.outside`."""
    found = [ALIKE, *text_options.outside(keys, algorithms, study, known)]
    try:
        given = _expected(algorithms, study)
    except SpecError:
        if known is None:
            raise
        return [*found, *known.get("expected", [])]
    return [*found, *_digest(given)]


def computed(encoding: Mapping[str, Any]) -> list[str]:
    """Nothing: captions are padded to one length."""
    return []


def _digest(expected: Mapping[str, Any]) -> list[str]:
    """What a folder expects of pictures, for fingerprints; empty if nothing."""
    return [fingerprint_of("expected pictures", expected)] if expected else []


def _expected(algorithms: Mapping[str, AlgorithmSpec], study: Path) -> dict[str, Any]:
    """`image_size`, `mean` and `std` of the first model of transformers, as far as it says."""
    for spec in algorithms.values():
        if (name := name_of(spec.architecture)) is None:
            continue
        folder = find_folder(name, study)
        vision = read_config(folder).get("vision_config")
        size = vision.get("image_size") if isinstance(vision, dict) else None
        found = {"image_size": size} if isinstance(size, int) and size > 0 else {}
        return {**found, **(preprocessing_of(folder) or {})}
    return {}


def _changes(options: Options, expected: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Changes of options that say nothing, and what to say of them."""
    unset = {"image_size": None, "mean": "auto", "std": "auto"}
    changes = {k: value for k, value in expected.items() if getattr(options, k) == unset[k]}
    if "image_size" in changes and options.color == "keep":
        changes["color"] = "rgb"
    if not changes:
        return {}, []
    shown = ", ".join(f"{key} = {value}" for key, value in changes.items())
    return changes, [f"From the folder of the model: {shown}."]
