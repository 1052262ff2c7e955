"""Weights in the folder of a U-Net of diffusers: a start for training, or a trained checkpoint.

The library itself reads the folder, so that files of its older versions, whose attention had other
names, are understood as there. It reads safetensors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from engine.models.diffusers_zoo import diffusers
from engine.models.hf_folder import DIFFUSERS, model_part, read_config, weight_files
from engine.store.errors import CheckpointError
from engine.training.pretrained import Read, fill, first_of, read_with
from engine.training.weights import kept_parts

_SHOWN = 6
"""Classes that a note names."""


def start_from_unet(folder: Path, model: nn.Module, reset: Sequence[str] = ()) -> list[str]:
    """Fill a model with pretrained weights.

    Args:
        reset: Parts of the model that keep their own values.

    Returns:
        What the owner should know, one sentence each.

    Raises:
        CheckpointError: The folder cannot be read, or holds another architecture.
    """
    kept = kept_parts(model, reset)
    read = _fitting(folder, model)
    fill(folder, model, {name: t for name, t in read.state.items() if name not in kept})
    notes = [f"Training starts from the weights in {folder}."]
    if kept:
        parts = sorted({name.rpartition(".")[0] or name for name in kept})
        notes.append(f"{first_of(parts, 8)}: not from the folder, but from a fresh initialization.")
    return notes


def load_trained_unet(folder: Path, model: nn.Module, classes: Sequence[str]) -> list[str]:
    """Fill a model with the weights of a trained checkpoint, all of them.

    Returns:
        What the owner should know, one sentence each.

    Raises:
        CheckpointError: The folder cannot be read, or does not hold exactly this model.
    """
    fill(folder, model, _fitting(folder, model).state)
    if not classes:
        return []
    pairs = [f"{number} = {name}" for number, name in enumerate(classes)]
    return [f"Classes of {folder} are taken as this study's in order: {first_of(pairs, _SHOWN)}."]


def _fitting(folder: Path, model: nn.Module) -> Read:
    weight_files(folder)  # refuses pickles and missing parts
    read_config(folder, DIFFUSERS)
    library = diffusers(str(folder))
    read = read_with(
        model_part(folder),
        library.UNet2DModel.from_pretrained,
        torch_dtype=torch.float32,
        low_cpu_mem_usage=False,
    )
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in read.state.items()}
    wrong = sorted(name for name, shape in ours.items() if theirs.get(name) != shape)
    extra = sorted({*read.unexpected, *(theirs.keys() - ours.keys())})
    if lost := sorted(read.fresh | set(wrong)):
        raise CheckpointError(
            f"{folder} does not fit: {first_of(lost)} missing or of another shape. Does "
            "`architecture` name the folder of this model?"
        )
    if extra:
        raise CheckpointError(
            f"{folder} does not fit: {first_of(extra)} unexpected. Does `architecture` name the "
            "folder of this model?"
        )
    return read
