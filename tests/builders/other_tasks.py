"""Small data and studies of regression and multi-label tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from engine import Study

N_TRAIN, N_TEST = 160, 30

REGRESSION = """\
name = "Brightness"
seed = 5

[data]
source = "{source}"

[task]
name = "image-regression"

[algorithms.mlp]
architecture = "mlp"
architecture_options = {{ widths = [16] }}
epochs = 6
learning_rate = 0.03
batch_size = 32
checkpoints = 2

[search]
top_k = 20

[subset_runs]
masks = 15
removals = 2
"""

MULTILABEL = """\
name = "Colors in sentences"
seed = 5

[data]
source = "{source}"

[task]
name = "text-multilabel"

[algorithms.words]
architecture = "embedding-bag"
architecture_options = {{ width = 16, hidden = 16 }}
epochs = 8
learning_rate = 0.5
batch_size = 32
checkpoints = 2

[search]
top_k = 20

[subset_runs]
masks = 15
removals = 2
"""


def brightness(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures `[n, 8, 8]` uint8 of noise, and the mean brightness of each in per mille."""
    generator = np.random.default_rng(seed)
    level = generator.uniform(40, 210, (n, 1, 1))
    pictures = np.clip(level + generator.normal(0, 30, (n, 8, 8)), 0, 255).astype(np.uint8)
    return pictures, pictures.mean((1, 2)) / 255 * 1000 + generator.normal(0, 20, n)


def brightness_study(folder: Path) -> Study:
    """A study of image regression, not built."""
    arrays = {}
    for split, n, seed in (("train", N_TRAIN, 0), ("test", N_TEST, 1)):
        arrays[f"{split}_input"], arrays[f"{split}_label"] = brightness(n, seed)
    np.savez(folder / "brightness.npz", allow_pickle=False, **arrays)
    return Study.create(folder / "study", REGRESSION.format(source=folder / "brightness.npz"))


COLORS = ("blue", "green", "red")
_WORDS = [
    "the",
    "a",
    "house",
    "tree",
    "car",
    "with",
    "and",
    "under",
    "over",
    "small",
    "large",
    "old",
    "new",
    "very",
    "wall",
    "door",
]


def colored(n: int, seed: int) -> pd.DataFrame:
    """Sentences, and the colors in each as a text such as `blue;red`."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        found = [color for color in COLORS if generator.random() < 0.4]
        words = [*generator.choice(_WORDS, 6), *found]
        generator.shuffle(words)
        rows.append((" ".join(words), ";".join(found) or "[]"))
    return pd.DataFrame(rows, columns=["text", "labels"])


def colors_study(folder: Path) -> Study:
    """A study of multi-label texts, not built."""
    data = folder / "colors"
    data.mkdir()
    colored(N_TRAIN, 0).to_csv(data / "train.csv", index=False)
    colored(N_TEST, 1).to_csv(data / "test.csv", index=False)
    return Study.create(folder / "study", MULTILABEL.format(source=data))
