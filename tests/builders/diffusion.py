"""Small studies of diffusion on drawn pictures: bright squares on one side or the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine import Study
from engine.build.generating import generate
from engine.store import layout
from engine.study.reader import StudyReader

SIDE, N_TRAIN, N_TEST = 8, 96, 20
CLASSES = ("left", "right")

SPEC = """\
name = "Squares from noise"
seed = 5

[data]
source = "{source}"

[task]
name = "diffusion"
timesteps = 50
draws = 4
{task}

[algorithms.unet]
architecture = "unet-small"
architecture_options = {{ width = 8, levels = 2, patch = 1, groups = 4 }}
epochs = 6
batch_size = 24
optimizer = "adamw"
learning_rate = 3e-3
weight_decay = 0.0
checkpoints = 2

[trak]
proj_dim = 512
storage = "float32"

[search]
top_k = 20

[subset_runs]
masks = 15
removals = 2
"""


def squares(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures `[n, 8, 8]` uint8 with a square at the left or right, and the side of each."""
    generator = np.random.default_rng(seed)
    pictures = generator.integers(0, 30, (n, SIDE, SIDE))
    sides = generator.integers(0, 2, n)
    for picture, side in zip(pictures, sides, strict=True):
        top = generator.integers(0, SIDE - 3)
        picture[top : top + 3, 4 * side : 4 * side + 3] += 200
    return pictures.astype(np.uint8), sides


def write_squares(folder: Path) -> Path:
    """A file of both splits, with names of sides as labels."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split, n, seed in (("train", N_TRAIN, 0), ("test", N_TEST, 1)):
        pictures, sides = squares(n, seed)
        arrays[f"{split}_input"] = pictures
        arrays[f"{split}_label"] = np.array(CLASSES)[sides]
    np.savez(folder / "squares.npz", allow_pickle=False, **arrays)
    return folder / "squares.npz"


def squares_study(folder: Path, task: str = "") -> Study:
    """A study of diffusion, not built.

    Args:
        task: Further lines of `[task]`.
    """
    return Study.create(folder / "study", SPEC.format(source=write_squares(folder), task=task))


def without_bank(study: StudyReader) -> Study:
    """The study, whose build trains no subset runs."""
    path = layout.spec_file(study.root)
    path.write_text(path.read_text().replace("masks = 15", "masks = 0"))
    return Study.open(study.root)


def made_study(squares: StudyReader, root: Path) -> Study:
    """A study of what the checkpoints of another one made, not built."""
    return without_bank(generate(squares, root, count=4, seed=6, steps=10, frames=3))
