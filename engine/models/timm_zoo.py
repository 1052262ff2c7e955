"""`timm:NAME`: any architecture of the timm package, if it is installed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from engine.models.classifier import picture_shape
from engine.store.errors import SpecError

_NOT_OF_A_MODEL = ("cache_dir", "scriptable", "exportable", "no_jit")


def timm_model(encoding: dict[str, Any], n_classes: int, *, name: str, **options: Any) -> nn.Module:
    """Build timm's `name` with random weights; `options` go to `timm.create_model`.

    The weights keep timm's names, so that checkpoints made with timm fit.

    Raises:
        SpecError: timm is not installed, has no such architecture, or an option is not allowed.
    """
    try:
        import timm
    except ImportError as error:
        raise SpecError(
            f"architecture 'timm:{name}' needs timm, which cannot be imported ({error}): "
            "`pip install timm`, or take a built-in architecture."
        ) from error
    if name not in timm.list_models():
        raise SpecError(f"timm has no architecture {name!r}; `timm.list_models()` names them all.")
    for option in options:
        # These read files, which may be pickles, or the network.
        if option.startswith(("pretrained_", "checkpoint")) or option in _NOT_OF_A_MODEL:
            raise SpecError(
                f"option {option!r} of 'timm:{name}' is not allowed: weights come from "
                "`initial_weights` or `weights`, which are safetensors files."
            )
    channels, _, _ = picture_shape(encoding)
    fixed = {"pretrained": False, "num_classes": n_classes, "in_chans": channels}
    if taken := sorted(fixed.keys() & options.keys()):
        raise SpecError(f"option {taken[0]!r} of 'timm:{name}' is set by the study; leave it out.")
    model: nn.Module = timm.create_model(name, **fixed, **options)

    def embed(inputs: torch.Tensor) -> torch.Tensor:
        return model.forward_head(model.forward_features(inputs), pre_logits=True)  # type: ignore

    model.embed = embed  # type: ignore[assignment]
    return model
