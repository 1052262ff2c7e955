"""The files that the commands in the documentation name, in a folder to run them in."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from engine import Study
from tests.builders.files_of_other_tools import write_traker

SPEC = """\
name = "Two ways to train"
seed = 3

[data]
source = "fashion-mnist"
train_limit = 200
test_limit = 40

[task]
mean = 0.286
std = 0.353

[algorithms.plain]
architecture = "mlp"
architecture_options = { widths = [32] }
epochs = 3
learning_rate = 0.05
batch_size = 64
checkpoints = 3

[algorithms.augmented]
architecture = "mlp"
architecture_options = { widths = [32] }
epochs = 3
learning_rate = 0.05
batch_size = 64
checkpoints = 3
augmentations = ["flip"]

[search]
top_k = 20
map_epochs = 20

[subset_runs]
masks = 15
"""
PICTURES = {"train": 12, "test": 6}
"""Of each of two classes."""


def write_documented_files(built: Study, folder: Path, *, with_study: bool) -> None:
    """Everything that a page of the documentation may name.

    Args:
        built: A study of `SPEC`.
        folder: Where the page's commands will run.
        with_study: Put copies of the study there, as `my-study` and `demo`.
    """
    if with_study:
        for name in ("my-study", "demo"):
            shutil.copytree(built.root, folder / name)
    for name in ("ids.csv", "remove.csv"):
        (folder / name).write_text("id\ntrain-17\ntrain-99\n")
    checkpoints = sorted(
        (built.root / "algorithms" / "augmented" / "checkpoints").rglob("*.safetensors")
    )
    for name, checkpoint in zip("ab", checkpoints, strict=False):
        shutil.copy(checkpoint, folder / f"{name}.safetensors")
    shutil.copy(folder / "a.safetensors", folder / "other.safetensors")
    torch.save(load_file(folder / "a.safetensors"), folder / "model.pt")
    there = folder / "path" / "to"
    write_pictures(there / "pictures")
    n_test, n_train = (2 * PICTURES[split] for split in ("test", "train"))
    random = np.random.default_rng(0)
    write_traker(there / "save_dir", random.normal(size=(n_test, n_train)).astype(np.float32))
    write_bank(there / "folder", n_test, n_train)


def write_pictures(folder: Path) -> None:
    """Class folders of noisy pictures, dark ones and light ones."""
    random = np.random.default_rng(0)
    for split, n in PICTURES.items():
        for name, level in (("dark", 60), ("light", 190)):
            (folder / split / name).mkdir(parents=True)
            for number in range(n):
                pixels = random.integers(level - 40, level + 40, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


def write_bank(folder: Path, n_test: int, n_train: int, runs: int = 30) -> None:
    """A run bank in the published layout: random halves, and margins that follow from them."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    masks = random.random((runs, n_train)) < 0.5
    effects = random.normal(size=(n_train, n_test))
    np.save(folder / "train_masks.npy", masks)
    np.save(folder / "test_margins.npy", (masks @ effects).astype(np.float32))
