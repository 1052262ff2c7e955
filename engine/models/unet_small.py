"""`unet-small`: a U-Net that denoises small pictures, fast on a CPU and smooth."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field, validate_call
from torch import Tensor, nn
from torch.nn import functional

from engine.models.classifier import Embeds, picture_shape
from engine.models.denoising import CONDITIONS, DENOISER
from engine.store.errors import SpecError

Width = Annotated[int, Field(ge=4, le=1024)]
_FEWEST_PIXELS = 4
"""Sides of less than twice as many pixels are not halved any more."""
_PERIOD = 10_000
"""Longest wavelength of the sines that stand for a timestep."""


def _groups(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, groups), channels)


class Block(nn.Module):
    """x + two convolutions, between which the timestep's embedding is added."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.norm_in = _groups(channels_in, groups)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.condition = nn.Linear(embedding, channels_out)
        self.norm_out = _groups(channels_out, groups)
        self.conv_out = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h: Tensor = self.conv_in(functional.silu(self.norm_in(x)))
        h = h + self.condition(embedding)[:, :, None, None]
        h = self.conv_out(functional.silu(self.norm_out(h)))
        return h + self.skip(x)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """x + attention of all places of the picture to all others."""

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _groups(channels, groups)
        self.read = nn.Linear(channels, 3 * channels)
        self.write = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        places = self.norm(x).flatten(2).mT
        parts = self.read(places).view(b, h * w, 3, self.heads, c // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        similar = (q @ k.mT) * (c // self.heads) ** -0.5
        seen = (similar.softmax(-1) @ v).transpose(1, 2).reshape(b, h * w, c)
        return x + self.write(seen).mT.reshape(b, c, h, w)  # type: ignore[no-any-return]


class UNet(nn.Module, Embeds):
    """See `unet_small`. The embedding of a picture is the mean over places in the middle."""

    def __init__(
        self,
        channels: int,
        patch: int,
        widths: list[int],
        blocks: int,
        heads: int,
        groups: int,
        conditions: int,
    ) -> None:
        super().__init__()
        self.patch, width = patch, widths[0]
        self.waves = width
        embedding = 4 * width
        pixels = channels * patch**2
        self.time_in, self.time_out = nn.Linear(width, embedding), nn.Linear(embedding, embedding)
        self.classes = nn.Embedding(conditions, embedding) if conditions else None
        self.first = nn.Conv2d(pixels, width, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        current = width
        for level, wide in enumerate(widths):
            for _ in range(blocks):
                self.down.append(Block(current, wide, embedding, groups))
                current = wide
            if level + 1 < len(widths):
                self.shrink.append(nn.Conv2d(current, current, 3, stride=2, padding=1))
        self.attention = Attention(current, heads, groups)
        self.middle = Block(current, current, embedding, groups)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, wide in reversed(list(enumerate(widths))):
            for _ in range(blocks):
                self.up.append(Block(current + wide, wide, embedding, groups))
                current = wide
            if level:
                self.grow.append(nn.Conv2d(current, current, 3, padding=1))
        self.norm = _groups(current, groups)
        self.last = nn.Conv2d(current, pixels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.blocks = blocks

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None
    ) -> Tensor:
        """Noisy pictures `[b, c, h, w]` and timesteps `[b]` → `[b, c, h, w]`."""
        return self._run(sample, timestep, class_labels)[1]

    def embed_and_answer(self, *inputs: Tensor, **named: Tensor) -> tuple[Tensor, Tensor]:
        middle, answer = self._run(*inputs, **named)
        return middle.mean((2, 3)), answer

    def _run(
        self, sample: Tensor, timestep: Tensor, class_labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What is in the middle, and the answer."""
        embedding = self._embedding(timestep, class_labels)
        x = self.first(functional.pixel_unshuffle(sample, self.patch))
        kept = []
        for number, block in enumerate(self.down):
            x = block(x, embedding)
            kept.append(x)
            level, rest = divmod(number + 1, self.blocks)
            if not rest and level <= len(self.shrink):
                x = self.shrink[level - 1](x)
        middle = x = self.middle(self.attention(x), embedding)
        for number, block in enumerate(self.up):
            x = block(torch.cat([x, kept.pop()], 1), embedding)
            level, rest = divmod(number + 1, self.blocks)
            if not rest and level <= len(self.grow):
                size = kept[-1].shape[2:]
                x = self.grow[level - 1](functional.interpolate(x, size, mode="nearest"))
        x = self.last(functional.silu(self.norm(x)))
        return middle, functional.pixel_shuffle(x, self.patch)

    def _embedding(self, timestep: Tensor, class_labels: Tensor | None) -> Tensor:
        half = self.waves // 2
        powers = torch.arange(half, device=timestep.device) / half
        angles = timestep[:, None].float() * torch.exp(-math.log(_PERIOD) * powers)
        waves = torch.cat([angles.cos(), angles.sin()], 1)
        found: Tensor = self.time_out(functional.silu(self.time_in(waves)))
        if self.classes is not None:
            found = found + self.classes(class_labels)
        return functional.silu(found)


@validate_call
def unet_small(
    encoding: dict[str, Any],
    n_classes: int,
    *,
    width: Width = 32,
    levels: Annotated[int, Field(ge=1, le=6)] = 2,
    blocks: Annotated[int, Field(ge=1, le=8)] = 1,
    patch: Annotated[int, Field(ge=1, le=16)] = 2,
    heads: Annotated[int, Field(ge=1, le=64)] = 2,
    groups: Annotated[int, Field(ge=1, le=64)] = 8,
) -> nn.Module:
    """By default 430,500 parameters for 1 × 28 × 28 and 10 classes, seen as 14 × 14 and 7 × 7.

    Attention is at the lowest resolution alone. Before training it predicts 0 everywhere.

    Args:
        encoding: Of pictures that are denoised.
        n_classes: Not used: the number of classes is in the encoding.
        width: Channels at the highest resolution, an even number; each lower one has twice as many.
        levels: Resolutions, each with half the sides of the one before.
        blocks: Residual blocks at each resolution on the way down, and as many on the way up.
        patch: Squares of so many pixels' sides are one place from the start, which makes it faster.
        heads: Of the attention.
        groups: Of the normalization, as far as they divide the channels.

    Raises:
        SpecError: The encoding is of another task, or the numbers do not fit together.
    """
    if encoding.get("answer") != DENOISER:
        raise SpecError("'unet-small' is for pictures that are denoised (the task diffusion).")
    channels, height, tall = picture_shape(encoding)
    if height % patch or tall % patch:
        raise SpecError(
            f"'unet-small': patch = {patch} does not divide the sides of {height} × {tall} pixels; "
            "take patch = 1, or set image_size under [task]."
        )
    if min(height, tall) // patch < _FEWEST_PIXELS * 2 ** (levels - 1) // 2:
        raise SpecError(
            f"'unet-small': pictures of {height} × {tall} pixels are too small for {levels} levels."
        )
    if width % 2 or (width * 2 ** (levels - 1)) % heads:
        raise SpecError(
            f"'unet-small': width = {width} must be even, and {heads} heads must divide the "
            f"{width * 2 ** (levels - 1)} channels of the lowest resolution."
        )
    widths = [width * 2**level for level in range(levels)]
    return UNet(channels, patch, widths, blocks, heads, groups, len(encoding[CONDITIONS]))
