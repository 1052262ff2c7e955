"""A tiny UNet2DModel with random weights, saved as diffusers saves a pipeline or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.models.diffusers_zoo import diffusers

SETTINGS: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "num_class_embeds": 2,
}


def write_tiny_unet(folder: Path, seed: int = 0, pipeline: bool = True, **changes: Any) -> Path:
    """A U-Net and its scheduler.

    Args:
        pipeline: Whether they are in folders of their own.
        changes: Other keys of its config.
    """
    library = diffusers("a test")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = library.UNet2DModel(**(SETTINGS | changes))
    model.save_pretrained(folder / "unet" if pipeline else folder)
    scheduler = library.DDPMScheduler(50, beta_start=0.002, beta_end=0.3)
    scheduler.save_pretrained(folder / "scheduler" if pipeline else folder)
    return folder
