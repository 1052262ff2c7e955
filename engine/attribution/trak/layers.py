"""A plan's layers in a model, by name."""

from __future__ import annotations

from torch import nn

from engine.attribution.trak.functional import is_use, layer_of_use
from engine.attribution.trak.own_parameters import own_parameters
from engine.attribution.trak.plan import Plan


def layers_of(model: nn.Module, plan: Plan) -> dict[str, nn.Module]:
    """The model's layers with a gradient rule, by name."""
    leads = {path: layer.lead for path, layer in plan.layers.items() if layer.lead is not None}
    own = own_parameters(model, leads)
    found: dict[str, nn.Module] = {}
    for path in plan.layers:
        if path in own:
            found[path] = own[path]
        elif is_use(path):
            found[path] = layer_of_use(model, path)
        else:
            found[path] = model.get_submodule(path)
    return found
