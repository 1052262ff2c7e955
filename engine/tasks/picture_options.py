"""`[task]` of studies of pictures. Importing this module imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Side = Annotated[int, Field(ge=1, le=4096)]
Statistic = float | list[float] | Literal["auto"]


class Options(BaseModel):
    """`[task]` of a study of pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: Side | tuple[Side, Side] | None = None
    """Side, or [height, width], to which pictures are resized; None: all must have one size."""
    resize: Literal["squash", "crop", "pad"] = "squash"
    """`squash` changes proportions, `crop` keeps the middle, `pad` adds black borders."""
    color: Literal["keep", "grey", "rgb"] = "keep"
    """`keep` is grayscale if every training picture is, else RGB."""
    mean: Statistic = "auto"
    """Subtracted from pixels in 0…1: one number, one per channel, or measured on the training
    pictures (`auto`)."""
    std: Statistic = "auto"
    """Divides the result; given like `mean`."""
    value_range: tuple[float, float] | Literal["auto"] = "auto"
    """The values that become black and white in pictures of more than 8 bits a value; `auto` is the
    smallest and the largest value of the training pictures."""
