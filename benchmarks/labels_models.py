"""The models of `benchmarks.labels`: planted wrong labels, subset runs, folds and checkpoints.

Outputs of trained models are kept in `.bench/labels`, one file a model, named by what made it.
"""

from __future__ import annotations

import functools
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import workload
from engine import store
from engine.attribution.datamodels.run_bank import draw_mask
from engine.attribution.softmax import softmax
from engine.models import build_model
from engine.store.errors import DataError
from engine.store.spec import AlgorithmSpec
from engine.training import trainer
from engine.training.outputs import evaluate

CODE = 1
CLOTHING = "DATALOUPE_CLOTHING"
N_TRAIN, N_TEST, SIDE = 2000, 340, 32
SHARE = 0.05
"""Share of wrong labels."""
MASKS = 14
"""Subset runs on halves: with the checkpoint, as much training as 8 models with all data."""
FOLDS, REPEATS = 5, 2
"""Cross-validation for the rivals: 10 models on four fifths, also 8 models with all data."""
CHECKPOINTS = 1

Noise = Literal["uniform", "confusion", "none"]


@dataclass(frozen=True)
class Data:
    """A dataset: `input` uint8 and `label` int64 of both splits, and how it is trained on."""

    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    encoding: dict[str, Any]
    classes: int
    recipe: AlgorithmSpec


@dataclass(frozen=True)
class Case:
    """A dataset with planted labels.

    Attributes:
        labels: What the methods see, `[n_train]`.
        wrong: Which of them were changed, bool `[n_train]`.
    """

    name: str
    noise: Noise
    seed: int
    labels: np.ndarray
    wrong: np.ndarray


@functools.cache
def data(name: str) -> Data:
    """`fashion` (included) or `clothing` (the photos in the folder `$DATALOUPE_CLOTHING`)."""
    if name == "fashion":
        found = workload.data()
        train, test = (
            {key: array[:count] for key, array in arrays.items()}
            for arrays, count in ((found.train, N_TRAIN), (found.test, N_TEST))
        )
        return Data(train, test, workload.ENCODING, workload.N_CLASSES, workload.CNN.recipe)
    train, test = photos("train", N_TRAIN), photos("validation", N_TEST)
    pixels = train["input"] / 255.0
    encoding = {
        "shape": [3, SIDE, SIDE],
        "mean": pixels.mean(axis=(0, 2, 3)).tolist(),
        "std": pixels.std(axis=(0, 2, 3)).tolist(),
        "cell": SIDE,
    }
    changes = {"epochs": 12, "batch_size": 64, "learning_rate": 0.1, "augmentations": ["flip"]}
    recipe = workload.CNN.recipe.model_copy(update=changes)
    return Data(train, test, encoding, int(train["label"].max()) + 1, recipe)


def photos(part: str, count: int) -> dict[str, np.ndarray]:
    """The first photos of a Parquet file with the columns `image` and `label`, as squares.

    Raises:
        DataError: There is no such file.
    """
    import pyarrow.parquet as pq
    from PIL import Image

    path = Path(os.environ.get(CLOTHING, "")) / f"{part}.parquet"
    if not path.is_file():
        raise DataError(f"Set ${CLOTHING} to a folder with train.parquet and validation.parquet.")
    table = pq.read_table(path).slice(0, count)
    pictures = []
    for one in table["image"].to_pylist():
        with Image.open(io.BytesIO(one["bytes"])) as picture:
            small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
            pictures.append(np.asarray(small).transpose(2, 0, 1))
    labels = table["label"].to_numpy().astype(np.int64)
    return {"input": np.stack(pictures), "label": labels}


def plant(name: str, noise: Noise, seed: int) -> Case:
    """Change 5 % of the labels: each to any other class alike, or to one that a model confuses."""
    given = data(name)
    truth, generator = given.train["label"], np.random.default_rng([17, seed])
    labels, wrong = truth.copy(), np.zeros(len(truth), bool)
    count = 0 if noise == "none" else round(SHARE * len(truth))
    wrong[generator.permutation(len(truth))[:count]] = True
    chances = np.ones((given.classes, given.classes))
    if noise == "confusion":
        chances = confusion(name)
    np.fill_diagonal(chances, 0)
    chances /= chances.sum(axis=1, keepdims=True)
    for row in np.flatnonzero(wrong).tolist():
        labels[row] = generator.choice(given.classes, p=chances[truth[row]])
    return Case(name, noise, seed, labels, wrong)


def confusion(name: str) -> np.ndarray:
    """Mean probability of each class for the pictures of each, from models that did not see them:
    `[classes, classes]`."""
    truth = data(name).train["label"]
    case = Case(name, "none", 0, truth, np.zeros(len(truth), bool))
    left_out = np.arange(len(truth)) % 2 == 0
    probabilities = np.zeros((len(truth), data(name).classes))
    for part in (left_out, ~left_out):
        probabilities[part] = softmax(outputs(case, 10_000, ~part)["train"][part])
    return np.stack([probabilities[truth == c].mean(axis=0) for c in range(data(name).classes)])


def halves(case: Case) -> np.ndarray:
    """The masks of the subset runs, bool `[MASKS, n_train]`."""
    n = len(case.labels)
    return np.stack([draw_mask(case.seed, number, n, 0.5) for number in range(MASKS)])


def bank(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the subset runs on the training and the test pictures, `[MASKS, n, classes]`."""
    runs = [outputs(case, number, mask) for number, mask in enumerate(halves(case))]
    return np.stack([run["train"] for run in runs]), np.stack([run["test"] for run in runs])


def cross_validated(case: Case) -> np.ndarray:
    """Probabilities from models that did not see the picture, mean over repeated
    cross-validations, `[n_train, classes]`."""
    n = len(case.labels)
    total = np.zeros((n, data(case.name).classes))
    for repeat in range(REPEATS):
        order = np.random.default_rng([23, case.seed, repeat]).permutation(n)
        for fold in range(FOLDS):
            left_out = np.zeros(n, bool)
            left_out[order[fold::FOLDS]] = True
            found = outputs(case, 1000 + repeat * FOLDS + fold, ~left_out)["train"]
            total[left_out] += softmax(found[left_out]) / REPEATS
    return total


def checkpoints(case: Case) -> list[dict[str, np.ndarray]]:
    """Outputs and embeddings of the models trained on everything."""
    everything = np.ones(len(case.labels), bool)
    return [outputs(case, 2000 + number, everything) for number in range(CHECKPOINTS)]


def outputs(case: Case, number: int, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Logits of one model on both splits; embeddings, too, if it is trained on everything."""
    given = data(case.name)
    recipe = given.recipe.model_dump(exclude_unset=True)
    fingerprint = store.fingerprint_of(
        CODE, case.name, recipe, case.labels.tolist(), number, np.packbits(mask).tolist(), N_TEST
    )
    path = workload.CACHE / "labels" / f"{fingerprint}.safetensors"
    if path.exists():
        return store.read_tensors(path)
    seed = int(store.fingerprint_of("labels", case.seed, number)[:7], 16)
    model = build_model(given.recipe.architecture, {}, given.encoding, given.classes, seed)
    arrays = {**given.train, "label": case.labels}
    task, rows = workload.task(), np.flatnonzero(mask)
    trainer.train(task, model, arrays, given.encoding, given.recipe, seed, "cpu", rows)
    found = {}
    for split, some in (("train", arrays), ("test", given.test)):
        made = evaluate(task, model, some, given.encoding, 500, "cpu")
        found[split] = made["logits"].astype(np.float32)
        if mask.all():
            found[f"{split}_embeddings"] = made["embeddings"]
    store.write_tensors(path, found, path.stem)
    return store.read_tensors(path)
