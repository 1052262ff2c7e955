"""A study of a fine-tuned BERT as Hugging Face saves it, and of one trained from scratch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine import Study
from engine.applications.live import Query, run_query
from engine.build.stages.checkpoints import checkpoint_fingerprint, recipe_fingerprint
from engine.build.stages.data import data_fingerprint
from engine.store import layout
from engine.store.errors import StoreError
from tests.builders.copies import copy_of
from tests.builders.sentences import sentences
from tests.builders.tiny_bert import write_tiny_bert

SPEC = """\
name = "Two BERTs"

[data]
source = "texts"

[task]
name = "text-classification"

[algorithms.given]
architecture = "transformers:bert"
weights = ["bert", "bert-2"]

[algorithms.scratch]
architecture = "bert-small"
architecture_options = { layers = 2, width = 32, heads = 2 }
checkpoints = 1
epochs = 12
batch_size = 8
optimizer = "adamw"
learning_rate = 3e-3
gradient_clipping = 1.0
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Study:
    """Read it, never write into it."""
    root = tmp_path_factory.mktemp("berts") / "study"
    (root / "texts").mkdir(parents=True)
    sentences(60, 0).to_csv(root / "texts" / "train.csv", index=False)
    sentences(16, 1).to_csv(root / "texts" / "test.csv", index=False)
    shutil.copytree(tiny_bert, root / "bert")
    write_tiny_bert(root / "bert-2", seed=1)
    study = Study.create(root, SPEC)
    study.build(workers=0)
    return study


def test_a_bert_from_scratch_learns_and_is_explained(built: Study) -> None:
    assert built.predictions("test", "scratch")["correct"].mean() > 0.9
    labels = built.table("train")["label"]
    supporting = built.explain(0, k=5, algorithm="scratch").supporting
    label = built.table("test")["label"][0]
    assert [labels[influence.row] for influence in supporting].count(label) >= 4


def test_trained_folders_are_taken_as_they_are(built: Study) -> None:
    scores = [influence.score for influence in built.explain(0, k=5, algorithm="given").supporting]
    assert np.isfinite(scores).all()
    assert built.dataset.encoding["tokenizer_files"]
    assert "0.0% of the tokens of the test texts are unknown." in built.dataset.notes


@pytest.fixture
def moved(built: Study, tmp_path: Path) -> Study:
    """A copy without the folders that the models came from."""
    study = copy_of(built, tmp_path / "study")
    shutil.rmtree(study.root / "bert")
    return study


def test_a_moved_study_reads_new_texts_without_the_folder(built: Study, moved: Study) -> None:
    query = "the cook loved this film 世界"
    here, there = (run_query(Query(s.root, "given", {"text": query})) for s in (built, moved))
    np.testing.assert_array_equal(here.probabilities, there.probabilities)
    assert there.support.tolist() == here.support.tolist()
    assert "does not know “世”" in there.notes[-1]


def test_a_moved_study_is_still_current(built: Study, moved: Study) -> None:
    assert data_fingerprint(moved) == data_fingerprint(built)
    assert recipe_fingerprint(moved, "scratch") == recipe_fingerprint(built, "scratch")


def test_another_config_or_tokenizer_makes_the_study_stale(built: Study, tmp_path: Path) -> None:
    study = copy_of(built, tmp_path / "study")
    before = checkpoint_fingerprint(study, "given", 0)
    config = study.root / "bert" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"transformers_version": "4.0"}))
    assert checkpoint_fingerprint(study, "given", 0) == before
    config.write_text(json.dumps(content | {"num_attention_heads": 1}))
    assert checkpoint_fingerprint(study, "given", 0) != before
    with pytest.raises(StoreError, match="--rebuild"):
        study.build(workers=0)
    config.write_text(json.dumps(content))
    old = data_fingerprint(study)
    settings = study.root / "bert" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_max_length": 20}))
    assert data_fingerprint(study) != old


def test_the_study_keeps_the_config(built: Study) -> None:
    kept = json.loads(layout.architecture_file(built.root, "given").read_text())
    assert kept["name"] == "bert"
    assert kept["config"]["model_type"] == "bert"
    assert not layout.architecture_file(built.root, "scratch").exists()
