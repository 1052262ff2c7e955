"""Data: from a source to two checked splits, and how an example looks.

    sources     `[data]` of study.toml → two checked splits (`load_source`)
    reading     files, folders, arrays, Hugging Face names → rows
    columns     which column is the input, and which the label
    labels      labels of any kind → one list of classes
    sampling    the rows that `train_limit` and `test_limit` draw
    raw         fingerprints of a source's rows
    pictures    a picture's bytes → 8-bit grayscale or RGB, safely
    thumbnails  sprite sheets, and where a thumbnail is on its sheet
    templates   the specs that Dataloupe ships
    assets      the files that Dataloupe ships

Import `sources` and `reading` only where data are read: the Hugging Face library takes two seconds
to import, and the dashboard should not wait for it.
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
