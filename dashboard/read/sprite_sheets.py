"""Sprite sheets of arbitrary rows, started as soon as a page is about to show them.

The browser requests a sheet only after it has built the page, and by then the sheet is ready.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from engine.data.fitting import as_picture
from engine.store.layout import Split
from engine.study.reader import StudyReader
from engine.study.thumbnails import Sheet, gathered_sheet
from engine.study.trajectories import Trajectory

_pool = ThreadPoolExecutor(2, thread_name_prefix="sheets")


@lru_cache(maxsize=256)
def gathered(root: Path, fingerprint: str, split: Split, rows: tuple[int, ...]) -> Future[Sheet]:
    """The sheet of these rows, made in the background; the most recent ones are cached.

    Args:
        fingerprint: Of the study's data, so that changed data make a new sheet.
    """
    return _pool.submit(lambda: gathered_sheet(StudyReader.open(root), split, rows))


def frames_sheet(way: Trajectory) -> Image.Image:
    """The frames of a way side by side: what the model saw above, what it made out below."""
    lines = [np.concatenate(list(line), axis=2) for line in (way.frames, way.denoised)]
    pixels = np.concatenate(lines, axis=1)
    return as_picture(pixels)
