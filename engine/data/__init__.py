"""Datasets → tensors, and what to show of an example.

    sources     a spec's `[data]` → two checked splits (`load_source`)
    readers     files, folders, arrays, hub names → rows
    labels      labels of any kind → one list of classes
    pictures    a picture's bytes → 8-bit grey or RGB, safely
    thumbnails  sprite sheets, and where a thumbnail lies on its sheet
    assets      what Dataloupe ships: the embedded dataset and the specs

`sources` and `readers` are imported from their own files, and only where data are read: the Hugging
Face library takes two seconds to import, which a dashboard should not wait for.
"""

from engine.data.assets import asset
from engine.data.thumbnails import SPRITES_PER_SHEET, crop, sprite_sheet, thumbnail_box

__all__ = [
    "SPRITES_PER_SHEET",
    "asset",
    "crop",
    "sprite_sheet",
    "thumbnail_box",
]
