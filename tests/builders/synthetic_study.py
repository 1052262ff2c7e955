"""A synthetic study, written through the store: any size, no training.

Pictures are seeded patterns, one style a class. Predictions and scores are random but look like
real ones: supporters mostly share the true label, opposers of a wrong prediction mostly carry the
predicted one. Used by the tests, and by benchmarks of the pages at sizes nobody wants to train.

    python -m tests.builders.synthetic_study FOLDER --train 50000 --test 10000
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from engine import store
from engine.api import Study
from engine.data import SPRITES_PER_SHEET, sprite_sheet
from engine.store import layout
from engine.store.layout import FORMAT, MAP_KINDS, ROWS_PER_SHARD, SPLITS, TRAK, Split
from engine.study.examples import shard_count
from engine.tasks.classification import CHOICES

Stage = Literal["spec", "data", "predictions", "complete"]
STAGES: tuple[Stage, ...] = ("spec", "data", "predictions", "complete")
CLASSES = ("Ankle boot", "Bag", "Coat", "Dress", "Pullover", "Sandal", "Shirt", "Sneaker")
WORDS = ["calm", "bright", "dull", "loud", "quick", "plain", "sharp", "mild", "warm", "vivid"]


def write_study(
    root: Path,
    n_train: int = 40,
    n_test: int = 24,
    classes: Sequence[str] = CLASSES,
    stage: Stage = "complete",
    display: Literal["image", "text"] = "image",
    algorithms: Sequence[str] = ("cnn",),
    cell: int = 28,
    top_k: int = 20,
    wrong: float = 0.2,
    seed: int = 0,
    name: str = "Synthetic",
    files: Sequence[str] = ("",),
    texts: Sequence[str] = (),
) -> Study:
    """Write a study as far as `stage`, and open it.

    Args:
        files: Ends of the examples' ids in turn, as the names of files would be.
        texts: Those of the first examples of each split, if it has texts.
    """
    task = "image-classification" if display == "image" else "text-classification"
    quoted = json.dumps(name, ensure_ascii=False)  # TOML takes no surrogate pairs.
    spec = f'name = {quoted}\n[data]\nsource = "synthetic"\n[task]\nname = "{task}"\n'
    spec += "".join(f"[algorithms.{algorithm}]\n" for algorithm in algorithms)
    study = Study.create(root, spec)
    reached = STAGES.index(stage)
    if reached >= STAGES.index("data"):
        write_data(study, n_train, n_test, classes, display, cell, seed, files, texts)
    for number, algorithm in enumerate(algorithms):
        generator = np.random.default_rng([seed, number])
        if reached >= STAGES.index("predictions"):
            write_predictions(study, algorithm, wrong, generator)
            write_neighbours(study, algorithm, top_k)
        if reached >= STAGES.index("complete"):
            write_scores(study, algorithm, top_k, generator)
    return Study.open(root)


def write_data(
    study: Study,
    n_train: int,
    n_test: int,
    classes: Sequence[str],
    display: str,
    cell: int,
    seed: int,
    files: Sequence[str] = ("",),
    texts: Sequence[str] = (),
) -> None:
    """The data stage: tables and, for pictures, sprite sheets."""
    fingerprint = store.fingerprint_of(
        "synthetic", n_train, n_test, list(classes), display, cell, seed
    )
    store.write_json(layout.format_file(study.root), {"format": FORMAT}, fingerprint)
    sizes: dict[Split, int] = {"train": n_train, "test": n_test}
    for split, rows in sizes.items():
        generator = np.random.default_rng([seed, rows, split == "test"])
        labels = generator.integers(len(classes), size=rows)
        columns = {
            "id": [f"{split}-{row}{files[row % len(files)]}" for row in range(rows)],
            "label": [classes[label] for label in labels],
        }
        if display == "text":
            sentences = [_sentence(classes[label], generator) for label in labels]
            columns["text"] = [*texts, *sentences[len(texts) :]]
        table = pa.table(columns)
        for shard in range(-(-rows // ROWS_PER_SHARD)):
            part = table.slice(shard * ROWS_PER_SHARD, ROWS_PER_SHARD)
            store.write_table(layout.table_file(study.root, split, shard), part, fingerprint)
        if display == "image":
            for sheet, pictures in enumerate(_sheets(labels, cell, generator)):
                with store.atomic(layout.sprite_file(study.root, split, sheet)) as temporary:
                    temporary.write_bytes(sprite_sheet(pictures, cell))
    dataset = {
        "fingerprint": fingerprint,
        "source": "synthetic",
        "task": study.spec.task.name,
        "views": ["picture" if display == "image" else "text"],
        "labels": "class",
        "outcomes": "classes",
        "output": "margin",
        "output_title": "the margin of the true label",
        "width": len(classes),
        "n_train": n_train,
        "n_test": n_test,
        "classes": list(classes),
        "encoding": {},
        "cell": cell if display == "image" else 0,
        "warnings": [],
        "choices": [asdict(choice) for choice in CHOICES],
    }
    store.write_json(layout.dataset_file(study.root), dataset, fingerprint)


def _sentence(label: str, generator: np.random.Generator) -> str:
    words = " ".join(generator.choice(WORDS, size=12))
    return f"This one is {words}, which makes it {label[:40]}."


def _sheets(
    labels: np.ndarray, cell: int, generator: np.random.Generator
) -> Iterator[list[Image.Image]]:
    """Thumbnails by sheets: a grating in its class's direction behind a blob, with noise."""
    across, down = np.meshgrid(np.linspace(-1, 1, cell), np.linspace(-1, 1, cell))
    for start in range(0, len(labels), SPRITES_PER_SHEET):
        chunk = labels[start : start + SPRITES_PER_SHEET, None, None]
        size = (len(chunk), 1, 1)
        angle = chunk * 0.7 + generator.normal(scale=0.12, size=size)
        waves = np.sin((2 + chunk % 4) * 4 * (across * np.cos(angle) + down * np.sin(angle)))
        middle = generator.normal(scale=0.15, size=(2, *size))
        radius = np.hypot(across - middle[0], (down - middle[1]) * (0.7 + 0.3 * (chunk % 3)))
        blob = 1 / (1 + np.exp(18 * (radius - 0.72)))
        noise = generator.normal(scale=0.05, size=(len(chunk), cell, cell))
        grey = np.clip(blob * (0.62 + 0.3 * waves) + noise * blob, 0, 1)
        yield [Image.fromarray(picture, "L") for picture in (grey * 255).astype(np.uint8)]


def write_predictions(
    study: Study, algorithm: str, wrong: float, generator: np.random.Generator
) -> None:
    """The checkpoints stage, as far as pages read it; the share `wrong` is predicted wrongly."""
    classes = np.array(study.dataset.classes, dtype=object)
    for split in ("train", "test"):
        assert split == "train" or split == "test"
        labels = study.table(split)["label"].to_numpy()
        failed = generator.random(len(labels)) < wrong
        if wrong and len(labels) and not failed.any():
            failed[0] = True
        truth = np.searchsorted(np.sort(classes), labels)
        other = np.sort(classes)[(truth + 1) % len(classes)]
        margin = np.where(failed, -1, 1) * generator.gamma(2.0, 1.6, size=len(labels))
        true_probability = 1 / (1 + np.exp(-margin))
        confidence = np.where(failed, 1 - true_probability, true_probability)
        columns = {
            "predicted": pa.array(np.where(failed, other, labels), pa.string()),
            "correct": pa.array(~failed),
            "confidence": pa.array(confidence.astype(np.float32)),
            "output": pa.array(margin.astype(np.float32)),
        }
        path = layout.predictions_file(study.root, algorithm, split)
        store.write_table(path, pa.table(columns), "synthetic")
        logits = _logits(columns["predicted"].to_pylist(), confidence, study.dataset.classes)
        for checkpoint in range(study.checkpoints(algorithm)):
            path = layout.outputs_file(study.root, algorithm, checkpoint, split)
            outputs = {"logits": logits, "output": margin.astype(np.float32)}
            store.write_tensors(path, outputs, "synthetic")


def _logits(predicted: list[str], confidence: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Logits of these predictions; the classes that are left share what is left alike."""
    rest = np.clip((1 - confidence) / max(1, len(classes) - 1), 1e-9, 1)
    logits = np.repeat(np.log(rest)[:, None], len(classes), axis=1)
    place = {name: column for column, name in enumerate(classes)}
    columns = [place[name] for name in predicted]
    logits[np.arange(len(columns)), columns] = np.log(confidence)
    return logits.astype(np.float32)


def write_neighbours(study: Study, algorithm: str, k: int) -> None:
    """The neighbours stage; similar examples mostly share their label."""
    generator = np.random.default_rng(k)
    labels = {split: study.table(split)["label"].to_numpy() for split in SPLITS}
    members = {name: np.flatnonzero(labels["train"] == name) for name in study.dataset.classes}
    k = min(k, len(labels["train"]) - 1)
    for split, own in labels.items():
        index = np.empty((len(own), k), np.int32)
        for row, label in enumerate(own):
            drawn = _sample(members[label], len(labels["train"]), k + 1, generator)
            index[row] = drawn[drawn != (row if split == "train" else -1)][:k]
        similarity = np.sort(generator.uniform(0.7, 1, index.shape).astype(np.float32))[:, ::-1]
        for shard in range(shard_count(study, split)):
            rows = slice(shard * ROWS_PER_SHARD, (shard + 1) * ROWS_PER_SHARD)
            store.write_tensors(
                layout.neighbours_file(study.root, algorithm, split, shard),
                {"index": index[rows], "similarity": similarity[rows]},
                "synthetic",
            )
    about = {"checkpoints": study.checkpoints(algorithm), "reason": "synthetic"}
    about |= {"kind": "flat", "recall": 1.0, "recall_at": k, "candidates": k}
    store.write_json(layout.similarity_file(study.root, algorithm), about, "synthetic")


def write_scores(
    study: Study,
    algorithm: str,
    top_k: int,
    generator: np.random.Generator,
    method: str = TRAK,
) -> None:
    """A method's scores and the search stage, as far as pages read them: top-k of both signs."""
    dataset = study.dataset
    labels = study.table("train")["label"].to_numpy()
    table = study.table("test").join(study.predictions("test", algorithm))
    members = {name: np.flatnonzero(labels == name) for name in dataset.classes}
    k = min(top_k, dataset.n_train // 2)
    top: dict[str, np.ndarray] = {
        "support_index": np.full((dataset.n_test, k), -1, np.int32),
        "oppose_index": np.full((dataset.n_test, k), -1, np.int32),
    }
    for row, (label, predicted) in enumerate(zip(table["label"], table["predicted"], strict=True)):
        likely = [members[label], members[predicted] if predicted != label else labels[:0]]
        support = _sample(likely[0], dataset.n_train, k, generator)
        oppose = _sample(np.asarray(likely[1], dtype=int), dataset.n_train, 2 * k, generator)
        top["support_index"][row] = support
        top["oppose_index"][row] = oppose[~np.isin(oppose, support)][:k]
    for sign in ("support", "oppose"):
        sizes = np.sort(generator.gamma(1.2, 0.01, size=(dataset.n_test, k)).astype(np.float32))
        top[f"{sign}_score"] = sizes[:, ::-1] * (1 if sign == "support" else -1)
    store.write_tensors(layout.top_test_file(study.root, algorithm, method), top, "synthetic")
    for shard in range(shard_count(study, "train")):
        rows = min(ROWS_PER_SHARD, dataset.n_train - shard * ROWS_PER_SHARD)
        store.write_tensors(
            layout.top_train_file(study.root, algorithm, method, shard),
            _reverse(rows, dataset.n_test, k, generator),
            "synthetic",
        )
    store.write_tensors(
        layout.totals_file(study.root, algorithm, method),
        _totals(top, study, algorithm, method),
        "synthetic",
    )
    solver = {
        "kind": "dual-wide",
        "width": 32_768,
        "proj_dim": 32_768,
        "damping": 1.0,
        "tempering": 0.5,
        "curvature": "gauss-newton",
        "soft_threshold": 0.0,
        "reason": "Synthetic scores: nothing was trained.",
    }
    if method == TRAK:
        store.write_json(layout.solver_file(study.root, algorithm), solver, "synthetic")
    search = {
        "kind": "flat",
        "recall": 1.0,
        "recall_at": k,
        "checkpoints": study.checkpoints(algorithm),
    }
    store.write_json(layout.search_file(study.root, algorithm, method), search, "synthetic")
    write_map(study, algorithm, method)


def write_map(study: Study, algorithm: str, method: str = TRAK) -> None:
    """The map stage: every class in a place of its own. And the scores themselves, of rank 8."""
    dataset = study.dataset
    generator = np.random.default_rng(0)
    classes = {name: place for place, name in enumerate(dataset.classes)}
    place: dict[str, np.ndarray] = {}
    vectors: dict[str, np.ndarray] = {}
    for split in SPLITS:
        codes = np.array([classes[label] for label in study.table(split)["label"]])
        angle = 2 * np.pi * codes / len(classes)
        middle = 8 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        place[split] = (middle + generator.normal(size=middle.shape)).astype(np.float32)
        vectors[split] = generator.normal(0.05, 0.1, (len(codes), 8)).astype(np.float32)
        vectors[split][np.arange(len(codes)), codes % 8] += 0.4
    for kind in MAP_KINDS:
        store.write_tensors(
            layout.map_file(study.root, algorithm, method, kind), place, "synthetic"
        )
    for shard in range(shard_count(study, "test")):
        mine = slice(shard * ROWS_PER_SHARD, (shard + 1) * ROWS_PER_SHARD)
        tau = vectors["test"][mine] @ vectors["train"].T / 10
        path = layout.scores_file(study.root, algorithm, shard)
        if method != TRAK:
            path = layout.method_scores_file(study.root, algorithm, method, shard)
        store.write_tensors(path, {"scores": tau}, "synthetic")
    if method == TRAK:
        ones = {"out_to_loss": np.ones(dataset.n_train, np.float32)}
        store.write_tensors(layout.weighting_file(study.root, algorithm), ones, "synthetic")


def _sample(
    likely: np.ndarray, rows: int, number: int, generator: np.random.Generator
) -> np.ndarray:
    """`number` different rows, four fifths of them from `likely` as long as those last."""
    some = generator.permutation(likely)[: round(0.8 * number)]
    drawn = generator.choice(rows, size=min(rows, 2 * number), replace=False)
    rest = drawn[~np.isin(drawn, some)][: number - len(some)]
    return generator.permutation(np.concatenate([some, rest]))


def _totals(
    top: dict[str, np.ndarray], study: Study, algorithm: str, method: str
) -> dict[str, np.ndarray]:
    """Sums that fit the stored tops: as much again lies beyond them."""
    found: dict[str, np.ndarray] = {}
    for sign in ("support", "oppose"):
        found[f"test_{sign}"] = 2 * top[f"{sign}_score"].sum(axis=1)
        shards = [
            store.read_tensors(layout.top_train_file(study.root, algorithm, method, shard))[
                f"{sign}_score"
            ]
            for shard in range(shard_count(study, "train"))
        ]
        found[f"train_{sign}"] = 2 * np.concatenate(shards).sum(axis=1)
    return found


def _reverse(
    rows: int, n_test: int, k: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    k = min(k, n_test)
    found: dict[str, np.ndarray] = {}
    for sign, factor in (("support", 1), ("oppose", -1)):
        found[f"{sign}_index"] = generator.integers(n_test, size=(rows, k), dtype=np.int32)
        sizes = np.sort(generator.gamma(1.2, 0.01, size=(rows, k)).astype(np.float32))
        found[f"{sign}_score"] = factor * sizes[:, ::-1]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=5_000)
    parser.add_argument("--test", type=int, default=1_000)
    options = parser.parse_args()
    write_study(options.folder, options.train, options.test, top_k=100, wrong=0.12)
