"""A synthetic study of the size of ImageNet, as pages read it: written once, kept in `.bench/`.

1,281,167 training and 50,000 test pictures of 1,000 classes. Thumbnails repeat after 4,096 rows;
predictions, top-k and neighbors are random, but an example's neighbors and supporters mostly share
its class. Scores are of rank 32, by the primal solver.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks._report import log
from benchmarks._server import ROOT
from engine import store
from engine.api import Study
from engine.data import SPRITES_PER_SHEET, sprite_sheet
from engine.store import fingerprint_of, layout
from engine.store.layout import FORMAT, MAP_KINDS, ROWS_PER_SHARD, SPLITS, TRAK, Split
from engine.study.examples import shard_count
from engine.tasks.classification import CHOICES

N_TRAIN = int(os.environ.get("DATALOUPE_IMAGENET_TRAIN", 1_281_167))
N_TEST = int(os.environ.get("DATALOUPE_IMAGENET_TEST", 50_000))
CLASSES, RANK, TOP_K, NEIGHBOURS, CELL, WRONG = 1_000, 32, 100, 20, 48, 0.3
DISTINCT_SHEETS = ROWS_PER_SHARD // SPRITES_PER_SHEET
ALGORITHM = "resnet"
SPEC = """name = "A million pictures"
[data]
source = "synthetic"
[task]
name = "image-classification"
[algorithms.resnet]
checkpoints = 1
"""


def imagenet_study() -> Study:
    """The study; it is written again when the code that writes it or the layout changes."""
    names = ("benchmarks/imagenet_study.py", "engine/store/layout.py")
    code = [(ROOT / name).read_text() for name in names]
    folder = ROOT / ".bench" / "imagenet-pages"
    root = folder / fingerprint_of(N_TRAIN, N_TEST, code)
    if not root.exists():
        log(f"writing a study of {N_TRAIN:,} + {N_TEST:,} pictures to {root}")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished = root.with_suffix(".tmp")
        _write(Study.create(unfinished, SPEC))
        unfinished.rename(root)
    return Study.open(root)


def _write(study: Study) -> None:
    labels = {
        split: np.random.default_rng([rows, split == "test"]).integers(CLASSES, size=rows)
        for split, rows in (("train", N_TRAIN), ("test", N_TEST))
    }
    for step in (_data, _predictions, _neighbours, _scores, _maps):
        log(f"  {step.__name__.strip('_')}")
        step(study, labels)


Labels = dict[str, np.ndarray]


def _names() -> np.ndarray:
    return np.array([f"n{1440000 + number:08d}" for number in range(CLASSES)], object)


def _data(study: Study, labels: Labels) -> None:
    fingerprint = fingerprint_of("imagenet", N_TRAIN, N_TEST)
    store.write_json(layout.format_file(study.root), {"format": FORMAT}, fingerprint)
    names = _names()
    for split in SPLITS:
        own = names[labels[split]]
        for shard, rows in _shards(len(own)):
            table = {
                "id": [f"{own[row]}_{row:07d}" for row in rows],
                "label": own[rows.start : rows.stop],
                "file": [f"{split}/{own[row]}/{own[row]}_{row:07d}.JPEG" for row in rows],
            }
            path = layout.table_file(study.root, split, shard)
            store.write_table(path, pa.table(table), fingerprint)
        _sprites(study.root, split, len(own))
    dataset = {
        "fingerprint": fingerprint,
        "source": "synthetic",
        "task": study.spec.task.name,
        "views": ["picture"],
        "labels": "class",
        "outcomes": "classes",
        "output": "margin",
        "output_title": "the margin of the true label",
        "width": CLASSES,
        "n_train": N_TRAIN,
        "n_test": N_TEST,
        "classes": names.tolist(),
        "encoding": {},
        "cell": CELL,
        "warnings": [],
        "choices": [asdict(choice) for choice in CHOICES],
    }
    store.write_json(layout.dataset_file(study.root), dataset, fingerprint)


def _sprites(root: Path, split: Split, rows: int) -> None:
    """Sprite sheets of smooth noise; those after the first ones are links to them."""
    generator = np.random.default_rng(0)
    for sheet in range(-(-rows // SPRITES_PER_SHEET)):
        path = layout.sprite_file(root, split, sheet)
        if sheet >= DISTINCT_SHEETS:
            os.link(layout.sprite_file(root, split, sheet % DISTINCT_SHEETS), path)
            continue
        coarse = generator.integers(256, size=(SPRITES_PER_SHEET, 4, 4, 3), dtype=np.uint8)
        size = (CELL, CELL)
        pictures = [Image.fromarray(one).resize(size, Image.Resampling.BICUBIC) for one in coarse]
        with store.atomic(path) as temporary:
            temporary.write_bytes(sprite_sheet(pictures, CELL))


def _predictions(study: Study, labels: Labels) -> None:
    generator, names = np.random.default_rng(1), _names()
    for split in SPLITS:
        own = labels[split]
        failed = generator.random(len(own)) < WRONG
        other = (own + generator.integers(1, CLASSES, len(own))) % CLASSES
        predicted = np.where(failed, other, own)
        margin = np.where(failed, -1, 1) * generator.gamma(2.0, 1.6, len(own)).astype(np.float32)
        right = 1 / (1 + np.exp(-margin))
        confidence = np.where(failed, 1 - right, right).astype(np.float32)
        table = {
            "predicted": pa.array(names[predicted], pa.string()),
            "correct": pa.array(~failed),
            "confidence": pa.array(confidence),
            "output": pa.array(margin),
        }
        store.write_table(
            layout.predictions_file(study.root, ALGORITHM, split), pa.table(table), "synthetic"
        )
        rest = np.log(np.clip((1 - confidence) / (CLASSES - 1), 1e-9, 1))
        logits = np.repeat(rest.astype(np.float32)[:, None], CLASSES, axis=1)
        logits[np.arange(len(own)), predicted] = np.log(confidence)
        store.write_tensors(
            layout.outputs_file(study.root, ALGORITHM, 0, split),
            {"logits": logits, "output": margin},
            "synthetic",
        )


def _neighbours(study: Study, labels: Labels) -> None:
    generator = np.random.default_rng(2)
    members = _members(labels["train"])
    for split in SPLITS:
        for shard, rows in _shards(len(labels[split])):
            own = labels[split][rows.start : rows.stop]
            similarity = np.sort(generator.uniform(0.7, 1, (len(own), NEIGHBOURS)))[:, ::-1]
            found = {
                "index": _mostly_of(own, members, NEIGHBOURS, generator),
                "similarity": similarity.astype(np.float32),
            }
            path = layout.neighbours_file(study.root, ALGORITHM, split, shard)
            store.write_tensors(path, found, "synthetic")
    about = {"checkpoints": 1, "reason": "synthetic", "kind": "flat", "recall": 1.0}
    about |= {"recall_at": NEIGHBOURS, "candidates": NEIGHBOURS}
    store.write_json(layout.similarity_file(study.root, ALGORITHM), about, "synthetic")


def _scores(study: Study, labels: Labels) -> None:
    """Features, factors, top-k of both sides, and totals."""
    generator, root = np.random.default_rng(3), study.root
    for shard, rows in _shards(N_TRAIN):
        features = generator.normal(size=(len(rows), RANK)).astype(np.float32)
        path = layout.features_file(root, ALGORITHM, 0, shard)
        store.write_tensors(path, {"features": features}, "synthetic")
    factors = generator.normal(scale=1e-3, size=(N_TEST, RANK)).astype(np.float32)
    store.write_tensors(layout.factors_file(root, ALGORITHM, 0), {"factors": factors}, "synthetic")
    ones = {"out_to_loss": np.ones(N_TRAIN, np.float32)}
    store.write_tensors(layout.weighting_file(root, ALGORITHM), ones, "synthetic")
    own = labels["train"]
    tests = [(layout.top_test_file(root, ALGORITHM, TRAK), labels["test"])]
    trains = [
        (layout.top_train_file(root, ALGORITHM, TRAK, shard), own[rows.start : rows.stop])
        for shard, rows in _shards(N_TRAIN)
    ]
    sums: dict[str, np.ndarray] = {}
    for side, files, others in (("test", tests, "train"), ("train", trains, "test")):
        members = _members(labels[others])
        parts: dict[str, list[np.ndarray]] = {"support": [], "oppose": []}
        for path, classes in files:
            top = {}
            for sign, factor in (("support", 1), ("oppose", -1)):
                sizes = generator.gamma(1.2, 0.01, (len(classes), TOP_K)).astype(np.float32)
                top[f"{sign}_index"] = _mostly_of(classes, members, TOP_K, generator)
                top[f"{sign}_score"] = factor * -np.sort(-sizes)
                parts[sign].append(2 * top[f"{sign}_score"].sum(axis=1))
            store.write_tensors(path, top, "synthetic")
        sums |= {f"{side}_{sign}": np.concatenate(some) for sign, some in parts.items()}
    store.write_tensors(layout.totals_file(root, ALGORITHM, TRAK), sums, "synthetic")
    solver = {"kind": "primal", "width": RANK, "proj_dim": RANK, "damping": 1.0, "tempering": 0.5}
    solver |= {"curvature": "gauss-newton", "soft_threshold": 0.0, "reason": "Synthetic scores."}
    store.write_json(layout.solver_file(root, ALGORITHM), solver, "synthetic")
    search = {"kind": "flat", "recall": 1.0, "recall_at": TOP_K, "checkpoints": 1}
    store.write_json(layout.search_file(root, ALGORITHM, TRAK), search, "synthetic")


def _maps(study: Study, labels: Labels) -> None:
    generator = np.random.default_rng(4)
    middle = generator.uniform(-30, 30, (CLASSES, 2))
    place = {
        split: (middle[own] + generator.normal(size=(len(own), 2))).astype(np.float32)
        for split, own in labels.items()
    }
    for kind in MAP_KINDS:
        store.write_tensors(layout.map_file(study.root, ALGORITHM, TRAK, kind), place, "synthetic")
    for shard in range(shard_count(study, "train")):
        rows = min(ROWS_PER_SHARD, N_TRAIN - shard * ROWS_PER_SHARD)
        vectors = generator.normal(0.05, 0.1, (rows, RANK)).astype(np.float32)
        store.write_tensors(
            layout.train_vectors_file(study.root, ALGORITHM, TRAK, shard),
            {"vectors": vectors},
            "synthetic",
        )


def _shards(rows: int) -> list[tuple[int, range]]:
    starts = range(0, rows, ROWS_PER_SHARD)
    return [
        (shard, range(start, min(start + ROWS_PER_SHARD, rows)))
        for shard, start in enumerate(starts)
    ]


def _members(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by class; where each class begins, and how many rows it has."""
    counts = np.bincount(labels, minlength=CLASSES)
    return np.argsort(labels, kind="stable"), np.cumsum(counts) - counts, counts


def _mostly_of(
    classes: np.ndarray,
    members: tuple[np.ndarray, np.ndarray, np.ndarray],
    k: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """`k` different rows for each class, int32 `[n, k]`: four fifths of the class, where it has as
    many."""
    order, begins, counts = members
    own = round(0.8 * k)
    # Consecutive members from a random start are different; so are consecutive rows.
    start = generator.integers(1 << 30, size=(len(classes), 1))
    within = (start + np.arange(own)) % np.maximum(counts[classes, None], own)
    inside = within < counts[classes, None]
    likely = order[np.minimum(begins[classes, None] + within, len(order) - 1)]
    rest = (start * 7 + np.arange(k)) % len(order)
    found = np.concatenate([np.where(inside, likely, rest[:, :own]), rest[:, own:]], axis=1)
    return found.astype(np.int32)
