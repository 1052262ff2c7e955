"""The task seam holds: texts go from sentences to Explain through their own task file alone."""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd
import pytest

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
"""


def sentences(n: int, seed: int) -> pd.DataFrame:
    rng = random.Random(seed)
    rows = []
    for _ in range(n):
        label = rng.choice(["good", "bad"])
        verb = rng.choice(GOOD if label == "good" else BAD)
        rows.append((f"{rng.choice(SUBJECTS)} {verb} {rng.choice(OBJECTS)}", label))
    return pd.DataFrame(rows, columns=["text", "label"])


@pytest.fixture(scope="module")
def text_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    root: Path = tmp_path_factory.mktemp("text")
    (root / "sentences").mkdir()
    sentences(200, 0).to_csv(root / "sentences" / "train.csv", index=False)
    sentences(40, 1).to_csv(root / "sentences" / "test.csv", index=False)
    study = Study.create(root, SPEC)
    study.build(workers=0)
    return study


def test_sentences_are_learnt_and_shown(text_study: Study) -> None:
    assert text_study.dataset.display == "text"
    assert text_study.predictions("test")["correct"].mean() > 0.9
    assert text_study.table("test")["text"][0]


def test_supporters_share_the_label_and_the_word_that_decides(text_study: Study) -> None:
    train, test = text_study.table("train")["text"], text_study.table("test")["text"]
    same_label = same_verb = 0
    for row in range(40):
        (verb,) = set(test[row].split()) & set(GOOD + BAD)
        explanation = text_study.explain(row, k=5)
        for influence in explanation.supporting:
            same_label += influence.label == explanation.label
            same_verb += verb in train[influence.row].split()
    assert same_label >= 0.85 * 200
    assert same_verb >= 0.35 * 200  # a quarter of the examples of a label have its verb
