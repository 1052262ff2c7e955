"""Sentences whose verb decides their label: a small study of texts."""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd

from engine import Study

SUBJECTS = ["the cook", "my sister", "a sailor", "our teacher", "the gardener"]
GOOD = ["loved", "praised", "enjoyed", "admired"]
BAD = ["hated", "cursed", "despised", "mocked"]
OBJECTS = ["the soup", "this film", "a long walk", "the old song"]

SPEC = """\
name = "Small sentences"

[data]
source = "sentences"

[task]
name = "text-classification"
max_tokens = 8

[algorithms.words]
architecture = "embedding-bag"
epochs = 20
learning_rate = 0.5
batch_size = 16
checkpoints = 2

[search]
top_k = 10
map_epochs = 20
"""


def sentences(n: int, seed: int) -> pd.DataFrame:
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        label = rng.choice(["good", "bad"])
        verb = rng.choice(GOOD if label == "good" else BAD)
        rows.append((f"{rng.choice(SUBJECTS)} {verb} {rng.choice(OBJECTS)}", label))
    return pd.DataFrame(rows, columns=["text", "label"])


def sentences_study(root: Path) -> Study:
    """A study of 200 + 40 sentences, not built."""
    (root / "sentences").mkdir()
    sentences(200, 0).to_csv(root / "sentences" / "train.csv", index=False)
    sentences(40, 1).to_csv(root / "sentences" / "test.csv", index=False)
    return Study.create(root, SPEC)
