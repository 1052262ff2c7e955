"""Import score matrices and run banks of other tools.

Scores become a method of an algorithm. A *reader* (one file per tool) finds the scores and their
settings, `source` orients and checks the matrix, and `methods` writes, ranks and indexes it. Run
banks are read by `bank_folder` and imported by `banks`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from engine.exchange.importing import dattri, kronfluence, modeldiff, npy, traker
from engine.exchange.importing.source import Source


class Kind(NamedTuple):
    """A tool whose scores can be imported.

    Attributes:
        read: The reader: (path, name of the array, module or experiment) → `Source`.
        path: Description of the path for the command line.
    """

    read: Callable[[Path, str | None], Source]
    path: str


KINDS = {
    "traker": Kind(traker.read, "save_dir of traker, or one of its scores/*.mmap"),
    "kronfluence": Kind(kronfluence.read, "pairwise_scores.safetensors, or a folder with it"),
    "dattri": Kind(dattri.read, "the result of attribute() as .npy, .npz or .safetensors"),
    "modeldiff": Kind(modeldiff.read, "scores or datamodels as .npy, .npz or .safetensors"),
    "npy": Kind(npy.read, "any score matrix as .npy, .npz or .safetensors"),
}
