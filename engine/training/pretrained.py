"""Weights in the folder of a model of transformers: a start for training, or a trained checkpoint.

The library itself reads the folder, so that files of its older versions and parts of a model that
share weights are understood as there. It reads safetensors only, and runs no code of the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.models.hf_folder import labels_of, read_config, reason_of, weight_files
from engine.models.transformers_zoo import head_of, transformers
from engine.store.errors import CheckpointError
from engine.training.weights import kept_parts

_POOLER = "pooler"
"""A part of the base model that checkpoints of other tasks leave out."""


@dataclass(frozen=True)
class Read:
    """Weights that fit a model's architecture, as far as they do.

    Attributes:
        state: Name → tensor, for all names of the model.
        fresh: Names that the folder lacks, or has in another shape.
        wrong: (name, the folder's shape, the model's).
        unexpected: Names in the folder that the model lacks.
    """

    state: dict[str, Tensor]
    fresh: set[str]
    wrong: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    unexpected: list[str]


def start_from_folder(
    folder: Path, model: nn.Module, classes: Sequence[str], reset: Sequence[str] = ()
) -> list[str]:
    """Fill a model with pretrained weights; its head stays fresh where the folder has another one.

    Args:
        model: Of an architecture of transformers, with seeded weights.
        reset: Parts of the model that keep their own values.

    Returns:
        What the owner should know, one sentence each.

    Raises:
        CheckpointError: The folder cannot be read, or holds another architecture.
    """
    kept = kept_parts(model, reset)
    read = _read(folder, model)
    inner = getattr(model, "base_model_prefix", "") + "."
    lost = [
        name
        for name in sorted(read.fresh)
        if name.startswith(inner) and _POOLER not in name.split(".") and name not in kept
    ]
    if lost:
        raise CheckpointError(
            f"{folder} does not fit its own config.json: {first_of(lost)} missing or of another "
            "shape. Copy the folder again."
        )
    fresh = read.fresh | set(kept)
    fill(folder, model, {name: t for name, t in read.state.items() if name not in fresh})
    notes = [f"Training starts from the weights in {folder}."]
    if parts := sorted({name.rpartition(".")[0] or name for name in fresh}):
        sizes = {(theirs[:1], ours[:1]) for _, theirs, ours in read.wrong}
        why = "the folder has no weights for it"
        if kept:
            why = "not from the folder"
        elif len(sizes) == 1:
            ((theirs, ours),) = sizes
            why = f"the folder's head has {theirs[0]} outputs, and this study needs {ours[0]}"
        start = "starts" if len(parts) == 1 else "start"
        notes.append(f"{first_of(parts, 8)} {start} from a fresh initialization: {why}.")
    head = _names_of(model, head_of(model))
    if not any(name.rpartition(".")[0] in head for name in fresh):
        notes += _in_order_of_classes(folder, model, classes)
    if read.unexpected:
        notes.append(f"Of {folder}, {first_of(read.unexpected)} are of another head and not used.")
    return notes


def load_trained_folder(folder: Path, model: nn.Module, classes: Sequence[str]) -> list[str]:
    """Fill a model with the weights of a fine-tuned checkpoint, all of them.

    Where the folder names its outputs as the study does, but in another order, the head's rows are
    put into the study's order.

    Returns:
        What the owner should know, one sentence each.

    Raises:
        CheckpointError: The folder cannot be read, or does not hold exactly this model.
    """
    read = _read(folder, model)
    if read.wrong:
        name, theirs, ours = read.wrong[0]
        head = name.rpartition(".")[0] in _names_of(model, head_of(model))
        more = (
            f"It has a head of {theirs[0]} outputs where this study needs {ours[0]}."
            if head
            else "Does `architecture` name the folder of this model?"
        )
        raise CheckpointError(
            f"{folder} does not fit: {name!r} is {list(theirs)}, the architecture has "
            f"{list(ours)}. {more}"
        )
    if read.fresh:
        raise CheckpointError(
            f"{folder} lacks {first_of(sorted(read.fresh))}, so it is not trained to classify. To "
            f'train from it, remove `weights` and set architecture = "transformers:FOLDER".'
        )
    if read.unexpected:
        raise CheckpointError(
            f"{folder} does not fit: {first_of(read.unexpected)} unexpected. Does `architecture` "
            "name the folder of this model?"
        )
    fill(folder, model, read.state)
    return _in_order_of_classes(folder, model, classes)


def _in_order_of_classes(folder: Path, model: nn.Module, classes: Sequence[str]) -> list[str]:
    names = labels_of(read_config(folder))
    if names is None or len(names) != len(classes):
        return []
    theirs, ours = ([_plain(name) for name in found] for found in (names, classes))
    if theirs == ours:
        return []
    if sorted(theirs) != sorted(ours) or len(set(ours)) < len(ours):
        pairs = ", ".join(f"{a} = {b}" for a, b in zip(names[:6], classes, strict=False))
        return [f"The outputs of {folder} are taken as this study's classes in order: {pairs}."]
    order = torch.tensor([theirs.index(name) for name in ours])
    head = head_of(model)
    with torch.no_grad():
        head.weight.copy_(head.weight[order])
        if head.bias is not None:
            head.bias.copy_(head.bias[order])
    return [
        f"The outputs of {folder} ({first_of(names, 6)}) were put into the order of this study's "
        f"classes ({first_of(list(classes), 6)})."
    ]


def _plain(name: str) -> str:
    return " ".join(str(name).casefold().replace("_", " ").split())


def _names_of(model: nn.Module, part: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if module is part}


def _read(folder: Path, model: nn.Module) -> Read:
    weight_files(folder)  # refuses pickles and missing parts
    read_config(folder)
    transformers(str(folder))
    return read_with(
        folder,
        type(model).from_pretrained,  # type: ignore[attr-defined]
        config=model.config,
        dtype=torch.float32,
    )


def read_with(folder: Path, from_pretrained: Callable[..., Any], **options: Any) -> Read:
    """Weights as a library itself reads a folder, which has been looked at before.

    Raises:
        CheckpointError: They cannot be read.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            found, about = from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **options,
            )
        except Exception as error:  # a damaged file can raise anything
            reason = reason_of(error)
            raise CheckpointError(f"the weights in {folder} cannot be read: {reason}.") from error
    wrong = [(str(name), tuple(a), tuple(b)) for name, a, b in about["mismatched_keys"]]
    fresh = {str(name) for name in about["missing_keys"]} | {name for name, _, _ in wrong}
    state = {name: tensor.detach() for name, tensor in found.state_dict().items()}
    return Read(state, fresh, sorted(wrong), sorted(map(str, about["unexpected_keys"])))


def fill(folder: Path, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model the weights of a folder. Raises CheckpointError if some are not finite."""
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"{folder}: tensor {name!r} holds NaN or infinite values; the training that made "
                "it has diverged."
            )
    model.load_state_dict(dict(state), strict=False)


def first_of(items: Iterable[Any], count: int = 3) -> str:
    """The first items, and how many more there are, in words."""
    found = [str(item) for item in items]
    rest = len(found) - count
    return ", ".join(found[:count]) + (f" and {rest} more" if rest > 0 else "")
