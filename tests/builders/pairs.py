"""Drawn shapes with captions: small data of pairs, and studies of them."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from engine import Study

SHAPES = ("circle", "square", "triangle", "bar", "cross")
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "gold": (210, 170, 0),
}
SIZES = {"small": 4, "large": 7}
SIDE = 16
N_TRAIN, N_TEST = 96, 24

PAIRS = """\
name = "Shapes with captions"
seed = 5

[data]
source = "{source}"

[task]
name = "image-text"
negatives = 40

[algorithms.towers]
architecture = "two-towers"
architecture_options = {{ width = 4, caption_width = 16, dimensions = 8 }}
epochs = 8
learning_rate = 0.01
optimizer = "adamw"
batch_size = 24
checkpoints = 2

[search]
top_k = 20

[subset_runs]
masks = 15
removals = 2
"""


def drawn(shape: str, color: str, size: str, generator: np.random.Generator) -> Image.Image:
    """A picture of 16 × 16 pixels with one shape at a random place."""
    picture = Image.new("RGB", (SIDE, SIDE), (250, 250, 250))
    draw, radius = ImageDraw.Draw(picture), SIZES[size] / 2 + 1
    x, y = generator.uniform(radius, SIDE - radius, 2)
    box = (x - radius, y - radius, x + radius, y + radius)
    fill = COLORS[color]
    if shape == "circle":
        draw.ellipse(box, fill)
    elif shape == "square":
        draw.rectangle(box, fill)
    elif shape == "triangle":
        draw.polygon([(x, box[1]), (box[0], box[3]), (box[2], box[3])], fill)
    elif shape == "bar":
        draw.rectangle((box[0], y - 1, box[2], y + 1), fill)
    else:
        draw.rectangle((box[0], y - 1, box[2], y + 1), fill)
        draw.rectangle((x - 1, box[1], x + 1, box[3]), fill)
    return picture


def write_pairs(folder: Path, n_train: int = N_TRAIN, n_test: int = N_TEST) -> Path:
    """A folder with train.csv and test.csv of file names, captions and shapes."""
    generator = np.random.default_rng(3)
    kinds = list(itertools.product(SHAPES, COLORS, SIZES))
    (folder / "pictures").mkdir(parents=True)
    for split, n in (("train", n_train), ("test", n_test)):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file_name", "caption", "shape"])
            for number in range(n):
                shape, color, size = kinds[generator.integers(len(kinds))]
                name = f"pictures/{split}-{number}.png"
                drawn(shape, color, size, generator).save(folder / name)
                words = [f"a {size} {color} {shape}", f"{color} {shape} that is {size}"]
                rows.writerow([name, words[generator.integers(2)], shape])
    return folder


def pairs_study(folder: Path) -> Study:
    """A study of shapes with captions, not built."""
    return Study.create(folder / "study", PAIRS.format(source=write_pairs(folder / "shapes")))
