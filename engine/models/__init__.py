"""Architectures: the registry of built-in ones, and how a model is built from any of them.

An architecture is a function `(encoding, n_classes, **options) -> torch.nn.Module`. The task plans
the `encoding` (`shape` = [channels, height, width] for pictures; for text `vocabulary`, whose token
0 is padding, or `inputs`: see `engine.models.ready.probe`). The module maps a batch of inputs to
logits `[batch, n_classes]`; for pictures with captions see `engine.models.pairs`, for source and
target texts `engine.models.sequences`, for pictures that are denoised `engine.models.denoising`.

A new architecture is one file in this folder and one line in `ARCHITECTURES`. The file may also
have a function `options_of(shapes)`, which guesses the options from the shapes of weights, so that
uploaded weights are recognized. Importing this module does not import torch.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from engine.store.errors import SpecError
from engine.store.trust import Code, load_code

if TYPE_CHECKING:
    import torch

    Architecture = Callable[..., torch.nn.Module]

ARCHITECTURES = {
    "bert-small": "engine.models.bert_small:bert_small",
    "embedding-bag": "engine.models.embedding_bag:embedding_bag",
    "mlp": "engine.models.mlp:mlp",
    "resnet-small": "engine.models.resnet_small:resnet_small",
    "resnet9": "engine.models.resnet9:resnet9",
    "t5-small": "engine.models.t5_small:t5_small",
    "two-towers": "engine.models.pairs.two_towers:two_towers",
    "unet-small": "engine.models.unet_small:unet_small",
}
"""Name in study.toml → "module:function"."""


def build_model(
    architecture: str,
    options: dict[str, Any],
    encoding: dict[str, Any],
    n_classes: int,
    seed: int,
    study: Path | None = None,
) -> torch.nn.Module:
    """Build a model on the CPU, in eval mode, with weights drawn from `seed` alone.

    The model is run on a batch of two empty inputs, so the returned model is known to take this
    encoding and to give `n_classes` logits. The global random state does not change.

    Args:
        architecture: A name in `ARCHITECTURES`, `timm:NAME`, `transformers:FOLDER`,
            `diffusers:FOLDER`, or `python:module:function`.
        options: Keyword arguments of the architecture.
        encoding: The task's encoding, as the store keeps it.
        n_classes: Number of logits.
        seed: Fixes the initial weights.
        study: Folder of the study that names the architecture, which must be trusted to name code.

    Raises:
        SpecError: There is no such architecture or option, a value is not allowed, or the model
            cannot take these inputs.
        UntrustedCode: It is code that this machine's user has not trusted.
    """
    import torch

    from engine.models.ready import make_ready

    function = _find(architecture, options, study)
    _check_names(architecture, function, options)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            model = function(encoding, n_classes, **options)
        except SpecError:
            raise
        except ValidationError as error:
            raise SpecError(_explain(architecture, error)) from error
        except Exception as error:
            raise SpecError(
                f"architecture {architecture!r} cannot be built with options {options}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(model, torch.nn.Module):
            raise SpecError(f"architecture {architecture!r} gave {model!r}, not a torch.nn.Module.")
        return make_ready(architecture, model, encoding, n_classes)


@dataclass(frozen=True)
class State:
    """The weights that an architecture has.

    Attributes:
        shapes: Name → shape.
        ties: Groups of names that are one tensor.
    """

    shapes: dict[str, tuple[int, ...]]
    ties: list[list[str]]


def state_of(
    architecture: str,
    options: dict[str, Any],
    encoding: dict[str, Any],
    n_classes: int,
    study: Path | None = None,
) -> State:
    """Names, shapes and ties of an architecture's weights.

    A built-in architecture takes no memory for its weights here, however large its options.

    Raises:
        SpecError, UntrustedCode: As in `build_model`.
    """
    import torch

    from engine.models.parts import ties_of

    if architecture not in ARCHITECTURES:
        model = build_model(architecture, options, encoding, n_classes, seed=0, study=study)
    else:
        function = _find(architecture, options, study)
        _check_names(architecture, function, options)
        try:
            with torch.device("meta"):
                model = function(encoding, n_classes, **options)
        except ValidationError as error:
            raise SpecError(_explain(architecture, error)) from error
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return State(shapes, ties_of(model))


def guess_options(
    architecture: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any] | None:
    """The options of a built-in architecture that weights of these shapes may belong to, or None.

    This is a guess: compare the shapes with those of `state_of`.
    """
    module_name = ARCHITECTURES[architecture].partition(":")[0]
    guess = getattr(importlib.import_module(module_name), "options_of", None)
    if guess is None:
        return None
    try:
        found: dict[str, Any] = guess(shapes)
    except (KeyError, IndexError):
        return None
    return found


def _find(architecture: str, options: dict[str, Any], study: Path | None) -> Architecture:
    kind, _, rest = architecture.partition(":")
    if architecture in ARCHITECTURES:
        module, _, name = ARCHITECTURES[architecture].partition(":")
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    if kind == "python" and rest:
        return load_code(Code.of(architecture, options), study, ("encoding", "n_classes"))
    if kind == "timm" and rest:
        from engine.models.timm_zoo import timm_model

        return functools.partial(timm_model, name=rest)
    if kind == "transformers" and rest:
        from engine.models.transformers_zoo import architecture_of

        return architecture_of(rest, study)
    if kind == "diffusers" and rest:
        from engine.models import diffusers_zoo

        return diffusers_zoo.architecture_of(rest, study)
    raise SpecError(
        f"architecture {architecture!r} is not known; take {', '.join(sorted(ARCHITECTURES))}, "
        "timm:NAME, transformers:FOLDER, diffusers:FOLDER, or python:module:function."
    )


def _check_names(architecture: str, function: Architecture, options: dict[str, Any]) -> None:
    parameters = list(inspect.signature(function).parameters.values())[2:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    allowed = [parameter.name for parameter in parameters]
    for name in options:
        if name not in allowed:
            raise SpecError(
                f"architecture {architecture!r} has no option {name!r}; it takes "
                f"{', '.join(allowed) or 'none'}."
            )


def _explain(architecture: str, error: ValidationError) -> str:
    return "\n".join(
        f"architecture {architecture!r}: option {'.'.join(str(key) for key in detail['loc'])} = "
        f"{detail['input']!r}: {detail['msg'][0].lower()}{detail['msg'][1:]}."
        for detail in error.errors(include_url=False)
    )
