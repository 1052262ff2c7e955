"""Parts of a model: those that share weights, and those that are trained.

    freeze(model, "last-2")     # gradients for the last two blocks and what comes after them

Blocks are the entries of an `nn.ModuleList` or `nn.Sequential` of modules of one class, such as a
BERT's layers; of several such lists, the last that is not inside a block. The head is whatever the
model defines after them. A model without blocks has its last linear layer as head.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from engine.models.classifier import Classifier
from engine.store.errors import SpecError

_FEWEST = 2
"""Modules of one class that are blocks; a single layer is none."""


@dataclass(frozen=True)
class Blocks:
    """The blocks of a model, in order, with their names."""

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]


def freeze(model: nn.Module, train: str) -> None:
    """Let only what `train` names have gradients: `all`, `head` or `last-N`.

    Raises:
        SpecError: The model has no such part.
    """
    if train == "all":
        return
    trained = _trained(model, train)
    if not any(id(parameter) in trained for parameter in model.parameters()):
        raise SpecError(f'train = "{train}" names no parameter of the model.')
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in trained)


def freeze_modes(model: nn.Module) -> None:
    """Put parts of a model that are not trained in eval mode: they drop and count nothing."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def blocks_of(model: nn.Module) -> Blocks | None:
    """A model's blocks; None if it has none."""
    last: Blocks | None = None
    inside: tuple[str, ...] = ()
    for path, module in model.named_modules():
        nested = f"{path}.".startswith(inside)
        if nested or not isinstance(module, (nn.ModuleList, nn.Sequential)):
            continue
        members = list(module.named_children())
        kinds = {type(member) for _, member in members}
        weighty = all(any(True for _ in member.parameters()) for _, member in members)
        if len(members) >= _FEWEST and len(kinds) == 1 and weighty:
            names = tuple(f"{path}.{name}" if path else name for name, _ in members)
            last = Blocks(names, tuple(member for _, member in members))
            inside = tuple(f"{name}." for name in names)
    return last


def ties_of(model: nn.Module) -> list[list[str]]:
    """Groups of names that are one parameter or buffer of the model."""
    groups: dict[int, list[str]] = {}
    tensors = (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    )
    for name, tensor in tensors:
        groups.setdefault(id(tensor), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _trained(model: nn.Module, train: str) -> set[int]:
    """Ids of the parameters that are trained."""
    blocks = blocks_of(model)
    count = 0 if train == "head" else int(train.removeprefix("last-"))
    if isinstance(model, Classifier):
        layers = [part for part in model.trunk.children() if any(True for _ in part.parameters())]
        _check_count(count, len(layers), train)
        return _ids(model.head, *layers[len(layers) - count :])
    if blocks is None:
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if count or not linear:
            what = "no linear layer" if not linear else "no blocks"
            raise SpecError(f'train = "{train}": the model has {what}; take "all" or "head".')
        return _ids(linear[-1])
    _check_count(count, len(blocks.modules), train)
    inside = {f"{name}." for name in blocks.names}
    last = blocks.names[-1] + "."
    after: set[int] = set()
    begun = False
    for name, parameter in model.named_parameters():
        begun = begun or name.startswith(last)
        if begun and not any(name.startswith(start) for start in inside):
            after.add(id(parameter))
    return after | _ids(*blocks.modules[len(blocks.modules) - count :])


def _check_count(count: int, most: int, train: str) -> None:
    if count > most:
        raise SpecError(f'train = "{train}": the model has {most} blocks.')


def _ids(*parts: nn.Module) -> set[int]:
    return {id(parameter) for part in parts for parameter in part.parameters()}
