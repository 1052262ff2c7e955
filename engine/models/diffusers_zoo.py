"""`diffusers:FOLDER`: the architecture of a U-Net that Hugging Face's diffusers saved.

The weights keep its names, so that checkpoints made with it fit. Only `UNet2DModel` is made: no
code of a folder is run, and nothing is downloaded.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.models.classifier import Embeds, picture_shape
from engine.models.denoising import CONDITIONS, DENOISER
from engine.models.hf_folder import CONFIG, DIFFUSERS, library_named, reason_of, stored_config
from engine.store.errors import SpecError
from engine.store.text import counted

UNET = "UNet2DModel"


def diffusers(what: str) -> Any:
    """The package diffusers, which then prints nothing.

    Raises:
        SpecError: It is not installed; `what` needs it.
    """
    library = library_named(DIFFUSERS, what)
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def architecture_of(name: str, study: Path | None) -> Callable[..., nn.Module]:
    """The architecture function of `diffusers:NAME` in a study."""

    def build(encoding: dict[str, Any], n_classes: int, *, pretrained: bool = True) -> nn.Module:
        """Build it with random weights; `pretrained` says whether training starts from its own."""
        if not isinstance(pretrained, bool):
            raise SpecError(f"option pretrained = {pretrained!r} must be true or false.")
        return build_unet(stored_config(DIFFUSERS, name, study), encoding, name)

    return build


def build_unet(config: Mapping[str, Any], encoding: dict[str, Any], name: str) -> nn.Module:
    """A U-Net with random weights.

    Args:
        config: As in config.json.
        encoding: Of pictures that are denoised.
        name: For messages.

    Raises:
        SpecError: It is another kind of model, or does not fit the encoding.
    """
    if encoding.get("answer") != DENOISER:
        raise SpecError(
            f"'diffusers:{name}' is for pictures that are denoised (the task diffusion)."
        )
    _check(config, encoding, name)
    library = diffusers(f"architecture 'diffusers:{name}'")
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        model: nn.Module = _embedding(library.UNet2DModel)(**json.loads(json.dumps(kept)))
    except Exception as error:  # whatever is checked there
        raise SpecError(f"{name}: its {CONFIG} cannot be used: {reason_of(error)}.") from error
    return model


def _check(config: Mapping[str, Any], encoding: Mapping[str, Any], name: str) -> None:
    kind = config["_class_name"]
    if kind != UNET:
        raise SpecError(f"{name} is a {kind}; of diffusers only a {UNET} can be used.")
    channels = picture_shape(dict(encoding))[0]
    inputs, outputs = (config.get(f"{side}_channels", 3) for side in ("in", "out"))
    if (inputs, outputs) != (channels, channels):
        raise SpecError(
            f"{name} takes {counted(inputs, 'channel')} and gives {outputs}, and this study's "
            f"pictures have {channels}: `color` under [task] changes them; a model that also "
            "predicts the variance is not supported."
        )
    if config.get("time_embedding_type", "positional") == "fourier":
        raise SpecError(
            f"{name} takes the level of noise, not a timestep (time_embedding_type = fourier), "
            "which is not supported."
        )
    known, classes = config.get("num_class_embeds"), len(encoding[CONDITIONS])
    if config.get("class_embed_type") is not None:
        raise SpecError(
            f"{name} takes classes as {config['class_embed_type']!r}, which is not supported: only "
            "numbers of classes (num_class_embeds) are."
        )
    if known is None and classes:
        raise SpecError(
            f'{name} makes pictures without classes: set class_column = "none" under [task].'
        )
    if known is not None and known != classes:
        raise SpecError(
            f"{name} makes pictures of {counted(known, 'class', 'classes')}, and this study has "
            f"{classes}: name their column as class_column under [task]."
        )


@functools.cache
def _embedding(model_class: Any) -> Any:
    """The class, with the mean over places in its middle as the embedding of a picture."""
    return type(model_class.__name__, (model_class, _WithMiddle), {"__module__": __name__})


class _WithMiddle(Embeds):
    def embed_and_answer(
        self, *inputs: torch.Tensor, **named: torch.Tensor
    ) -> tuple[torch.Tensor | None, Any]:
        model: Any = self
        middle = model.down_blocks[-1] if model.mid_block is None else model.mid_block
        seen: list[Any] = []
        handle = middle.register_forward_hook(lambda module, args, found: seen.append(found))
        try:
            answer = model(*inputs, **named)
        finally:
            handle.remove()
        found = seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1]
        return found.mean((2, 3)), answer
