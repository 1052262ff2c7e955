"""Flags, by planted truth: wrong labels, copied pictures, lone supporters."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from engine import Study
from engine.applications.brittle.data_issues import (
    RULES,
    doubtful_labels,
    find_data_issues,
    same_inputs,
)
from engine.data import asset
from engine.store.layout import TRAK
from engine.study.names import resolve_method

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


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three easy classes of Fashion-MNIST with planted faults."""
    root = tmp_path_factory.mktemp("spoilt")
    (root / "pictures").mkdir()
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
    study = Study.create(root, SPEC)
    study.build(workers=0)
    return study


def darker(image: dict[str, bytes]) -> dict[str, object]:
    """The picture with other brightness and contrast, so that no pixel need be the same."""
    picture = Image.open(io.BytesIO(image["bytes"])).point(lambda value: 8 + 0.8 * value)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def test_planted_faults_are_flagged(spoilt: Study) -> None:
    found = {
        name: np.flatnonzero(holds) for name, holds in find_data_issues(spoilt, "mlp", TRAK).items()
    }
    assert list(found) == list(RULES)
    assert found["leak"].tolist() == list(COPIED)
    assert set(BRIGHTENED) <= set(found["near-copy"])
    assert not set(COPIED) & set(found["near-copy"])
    assert len(set(MISLABELLED) & set(found["label"])) >= 3
    assert len(found["label"]) <= 6
    assert len(found["near-copy"]) <= 12


def test_a_copy_is_found_by_its_row(spoilt: Study) -> None:
    found = same_inputs(spoilt)
    for row in COPIED:
        assert found[row] == [row]
    assert not found[BRIGHTENED[0]]


def test_wrong_labels_in_the_training_data_are_found(spoilt: Study) -> None:
    from engine.applications.brittle.data_issues import nearest

    labels = spoilt.table("train")["label"].to_numpy()
    doubtful = np.flatnonzero(doubtful_labels(labels, nearest(spoilt, "mlp", "train")))
    assert len(set(WRONG_IN_TRAINING) & set(doubtful)) >= 3
    assert len(doubtful) <= 10


def test_doubt_needs_eight_of_ten_of_one_other_label() -> None:
    labels = np.array(["a"] * 11 + ["b"] * 10)
    others = np.arange(11, 21)
    near = np.tile(np.arange(10), (21, 1))
    near[0] = others  # ten of b around an a
    near[1] = [*others[:8], 2, 3]
    near[2] = [*others[:7], 3, 4, 5]
    near[3] = [*others[:8], -1, -1]
    near[11:] = others
    assert np.flatnonzero(doubtful_labels(labels, near)).tolist() == [0, 1, 3]


def test_texts_have_leaks_and_no_pictures(text_study: Study) -> None:
    found = find_data_issues(text_study, "words", resolve_method(text_study, "words"))
    train = set(text_study.table("train")["text"])
    wanted = text_study.table("test")["text"].isin(train).to_numpy()
    np.testing.assert_array_equal(found["leak"], wanted)
    assert not found["near-copy"].any()
