"""Where the browser gets pictures: addresses of our own routes, which change with the data, or
URLs that hold them."""

from __future__ import annotations

import base64
import io

import numpy as np

from dashboard.frame import base
from dashboard.login import picture_key
from dashboard.read.sprite_sheets import gathered
from engine.data.fitting import as_picture
from engine.store.layout import Split
from engine.study.reader import StudyReader


def sprite_url(study: StudyReader, split: Split, sheet: int | None = None) -> str:
    """URL of a sprite sheet, which changes whenever the pictures do.

    Without a sheet number, the URL contains `{}` instead.
    """
    return f"{_address('sprites', study, split)}/{'{}' if sheet is None else sheet}.webp"


def pictures_url(study: StudyReader, split: Split) -> str:
    """URL of an example's picture at the size that the models read, with `{}` for its row."""
    return f"{_address('pictures', study, split)}/{{}}.png"


def frames_url(study: StudyReader, row: int) -> str:
    """URL of the frames of a test example that the models made: `frames_sheet`."""
    return f"{_address('frames', study, 'test')}/{row}.png"


def gathered_url(study: StudyReader, split: Split, rows: tuple[int, ...]) -> str:
    """URL of one sheet of these rows, in order. Starts making the sheet."""
    gathered(study.root, study.dataset.fingerprint, split, rows)
    return f"{_address('sprites', study, split)}/of/{'-'.join(map(str, rows))}.webp"


def data_uri(pixels: np.ndarray) -> str:
    """A picture that is nowhere else, `[channels, height, width]` uint8, as a URL that holds it."""
    file = io.BytesIO()
    as_picture(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _address(what: str, study: StudyReader, split: Split) -> str:
    return f"{base()}/dataloupe/{what}/{picture_key(study.dataset.fingerprint)}/{split}"
