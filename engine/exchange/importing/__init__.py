"""Score matrices made by other tools, brought into a study as methods of an algorithm.

A *reader* (one file a tool) finds the scores and says what it knows of them; `source` turns them
the study's way and checks them; `scores` writes them into the study, ranks and indexes them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from engine.exchange.importing import dattri, kronfluence, modeldiff, npy, traker
from engine.exchange.importing.source import Source


class Kind(NamedTuple):
    """A tool whose scores can be read.

    Attributes:
        read: (path, name of the array or experiment) → what was found.
        path: What the path can be, in words for the command line.
    """

    read: Callable[[Path, str | None], Source]
    path: str


KINDS = {
    "traker": Kind(traker.read, "save_dir of traker, or one of its scores/*.mmap"),
    "kronfluence": Kind(kronfluence.read, "pairwise_scores.safetensors, or a folder with it"),
    "dattri": Kind(dattri.read, "what attribute() returned, as .npy, .npz or .safetensors"),
    "modeldiff": Kind(modeldiff.read, "scores or datamodels as .npy, .npz or .safetensors"),
    "npy": Kind(npy.read, "a matrix of your own as .npy, .npz or .safetensors"),
}
