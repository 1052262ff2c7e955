"""A study of three easy classes of Fashion-MNIST with planted faults: copies and wrong labels."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
from PIL import Image

from engine import Study
from engine.data import asset

COPIED, BRIGHTENED, MISLABELLED = (3, 4), (5, 6), (10, 11, 12, 13)
"""Test rows with planted faults: a training picture, a darker one, a wrong label."""
WRONG_IN_TRAINING = (20, 21, 22, 23)
SPEC = """\
name = "Spoilt"

[data]
source = "pictures"

[task]
mean = 0.286
std = 0.353

[algorithms.mlp]
architecture = "mlp"
architecture_options = { widths = [64] }
epochs = 12
learning_rate = 0.05
batch_size = 32
checkpoints = 2

[subset_runs]
masks = 15
"""


def spoilt_study(root: Path) -> Study:
    """Write its pictures and its spec, not built."""
    (root / "pictures").mkdir(parents=True)
    tables = {}
    for split, rows in (("train", 300), ("test", 60)):
        table = pd.read_parquet(asset("fashion-mnist") / f"{split}.parquet")
        easy = table[table["label"].isin([1, 8, 9])]  # trousers, bags, ankle boots
        tables[split] = easy.iloc[:rows].reset_index(drop=True)
    train, test = tables["train"], tables["test"]
    for row in COPIED:
        test.at[row, "image"], test.at[row, "label"] = (
            train.at[row, "image"],
            train.at[row, "label"],
        )
    for row in BRIGHTENED:
        test.at[row, "image"] = darker(train.at[row, "image"])
        test.at[row, "label"] = train.at[row, "label"]
    for table, wrong in ((test, MISLABELLED), (train, WRONG_IN_TRAINING)):
        for row in wrong:
            table.at[row, "label"] = {1: 8, 8: 9, 9: 1}[table.at[row, "label"]]
    for split, table in tables.items():
        table["label"] = table["label"].map({1: "trouser", 8: "bag", 9: "boot"})
        table.to_parquet(root / "pictures" / f"{split}.parquet")
    return Study.create(root, SPEC)


def darker(image: dict[str, bytes]) -> dict[str, object]:
    """The picture with other brightness and contrast, so that no pixel need be the same."""
    picture = Image.open(io.BytesIO(image["bytes"])).point(lambda value: 8 + 0.8 * value)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}
