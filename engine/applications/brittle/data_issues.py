"""Data issues of a prediction: likely wrong labels, leaks, copies, and lone supporters.

These are heuristics, not proofs. `RULES` describes each one as text, with its threshold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import numpy as np

from engine.store import layout
from engine.store.layout import SPLITS, Split
from engine.store.rows import ranges
from engine.study.capabilities import has
from engine.study.examples import read_arrays, read_stacked_arrays, shard_count
from engine.study.models import read_predictions
from engine.study.neighbours import has_similar
from engine.study.rankings import read_top, read_totals
from engine.study.reader import StudyReader
from engine.study.references import has_references, referenced_pictures

DataIssue = Literal["label", "training-label", "leak", "near-copy", "lone-support"]

NEIGHBOURS = 10
AGREE = 8
CONFIDENT = 0.8
SIMILAR = 0.99
LONE = 0.2
INSPECTED = 20
MOST_COMPARED = 200_000
"""Training examples above which inputs are not compared, because all of them would be read."""
MOST_DECODED = 10_000
"""The same for pixels of pictures by reference, each of which is decoded."""
_BLOCK = 2**16

RULES: Mapping[DataIssue, str] = {
    "label": "Its label is likely wrong: a different class is predicted with confidence "
    f"{CONFIDENT:g} or more, and {AGREE} of its {NEIGHBOURS} most similar training examples have "
    "that label.",
    "training-label": "A training example among its strongest influences has a likely wrong label: "
    f"{AGREE} of the {NEIGHBOURS} training examples most similar to it share a different label.",
    "leak": "Exactly the same input is in the training data; where pictures are kept by reference, "
    "the same file. Otherwise not looked for among more than "
    f"{MOST_COMPARED:,} training examples.",
    "near-copy": f"A training picture is nearly identical: among the {NEIGHBOURS} most similar, "
    f"one has pixels that correlate with it by {SIMILAR:g} or more. Not looked for among more than "
    f"{MOST_COMPARED:,} training examples, or {MOST_DECODED:,} by reference.",
    "lone-support": f"One training example has {LONE:.0%} or more of all support.",
}


def find_data_issues(
    study: StudyReader, algorithm: str, method: str
) -> dict[DataIssue, np.ndarray]:
    """Test examples that each rule applies to: bool `[n_test]`.

    Rules that need what the study lacks (similar examples, classes, pictures) apply to none.
    """
    predictions = read_predictions(study, "test", algorithm)
    labels = {split: study.table(split)["label"].to_numpy() for split in SPLITS}
    none = np.zeros(len(predictions), dtype=bool)
    found: dict[DataIssue, np.ndarray] = dict.fromkeys(RULES, none)
    classes = has(study, "classes")
    if classes and has_similar(study, algorithm):
        near = nearest(study, algorithm, "test")
        predicted = predictions["predicted"].to_numpy()
        agree = (labels["train"][near] == predicted[:, None]).sum(axis=1) >= AGREE
        confident = ~predictions["correct"].to_numpy(bool) & (
            predictions["confidence"].to_numpy() >= CONFIDENT
        )
        found["label"] = confident & agree
        doubtful = doubtful_labels(labels["train"], nearest(study, algorithm, "train"))
        found["training-label"] = influenced_by(study, algorithm, method, doubtful)
        if compares_pixels(study):
            found["near-copy"] = near_copies(study, near)
    if compares_inputs(study):
        found["leak"] = np.array([bool(rows) for rows in same_inputs(study)], dtype=bool)
    found["near-copy"] = found["near-copy"] & ~found["leak"]
    top, totals = read_top(study, algorithm, method), read_totals(study, algorithm, method)
    strongest = np.maximum(top["support_score"][:, 0], 0)
    found["lone-support"] = (strongest > 0) & (strongest >= LONE * totals["test_support"])
    return found


def compares_inputs(study: StudyReader) -> bool:
    """Whether equal inputs are looked for."""
    return has_references(study) or study.dataset.n_train <= MOST_COMPARED


def compares_pixels(study: StudyReader) -> bool:
    """Whether pictures that are nearly identical are looked for."""
    most = MOST_DECODED if has_references(study) else MOST_COMPARED
    return has(study, "pictures") and study.dataset.n_train <= most


def nearest(study: StudyReader, algorithm: str, split: Split) -> np.ndarray:
    """The most similar training rows of every example: `[n, k]` with k at most `NEIGHBOURS`."""
    from engine import store

    files = [
        layout.neighbours_file(study.root, algorithm, split, n)
        for n in range(shard_count(study, split))
    ]
    parts = [store.read_tensors(file)["index"][:, :NEIGHBOURS] for file in files]
    rows: np.ndarray = np.concatenate(parts)
    return rows


def doubtful_labels(labels: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Training examples whose most similar examples share a different label: bool `[n_train]`."""
    numbers = np.unique(labels, return_inverse=True)[1]
    doubtful = np.empty(len(numbers), dtype=bool)
    for block in ranges(range(len(numbers)), _BLOCK):
        rows = slice(block.start, block.stop)
        around = np.where(near[rows] >= 0, numbers[near[rows]], -1)
        counts = (around[:, :, None] == around[:, None, :]).sum(axis=2)  # per neighbor: same label
        counts[around < 0] = 0
        place = counts.argmax(axis=1)
        commonest = around[np.arange(len(around)), place]
        doubtful[rows] = (counts.max(axis=1) >= AGREE) & (commonest != numbers[rows])
    return doubtful


def influenced_by(
    study: StudyReader, algorithm: str, method: str, marked: np.ndarray
) -> np.ndarray:
    """Whether a marked training example is among the strongest of either sign: bool `[n_test]`.

    Args:
        marked: Bool `[n_train]`.
    """
    top = read_top(study, algorithm, method)
    found = np.zeros(study.dataset.n_test, dtype=bool)
    for sign in ("support", "oppose"):
        index = top[f"{sign}_index"][:, :INSPECTED]
        found |= ((index >= 0) & marked[index]).any(axis=1)
    return found


def same_inputs(study: StudyReader) -> list[list[int]]:
    """Training rows with exactly the input of each test example, whatever their labels."""
    rows: dict[bytes, list[int]] = {}
    for row, digest in enumerate(_digests(study, "train")):
        rows.setdefault(digest, []).append(row)
    return [rows.get(digest, []) for digest in _digests(study, "test")]


def _digests(study: StudyReader, split: Split) -> list[bytes]:
    """A digest of every example's input: all its arrays except the label. Of a picture by
    reference it is that of its file."""
    if has_references(study):
        return list(referenced_pictures(study, split).digests())
    found = []
    for shard in read_arrays(study, split):
        inputs = [np.asarray(shard[name]) for name in sorted(shard) if name != "label"]
        for row in range(len(inputs[0])):
            digest = hashlib.blake2b(digest_size=16)
            for array in inputs:
                digest.update(np.ascontiguousarray(array[row]).tobytes())
            found.append(digest.digest())
    return found


def training_copies(study: StudyReader, algorithm: str) -> tuple[np.ndarray, np.ndarray]:
    """Which training examples have the input of another one, exactly and nearly: bool `[n_train]`.

    None is nearly so unless examples are pictures with classes and similar ones are known.
    """
    _, place, number = np.unique(_digests(study, "train"), return_inverse=True, return_counts=True)
    exact = number[place] > 1
    nearly = np.zeros(len(exact), bool)
    known = has(study, "classes") and compares_pixels(study)
    if known and has_similar(study, algorithm):
        nearly = near_copies(study, nearest(study, algorithm, "train"), "train") & ~exact
    return exact, nearly


def near_copies(study: StudyReader, near: np.ndarray, split: Split = "test") -> np.ndarray:
    """Whether a picture's pixels correlate by `SIMILAR` with a similar one's: bool `[n]`.

    Args:
        near: The training rows most similar to each example of the split, none of them itself.
    """
    own, training = (read_stacked_arrays(study, name)["input"] for name in (split, "train"))
    found = np.zeros(len(near), dtype=bool)
    for block in ranges(range(len(near)), 256):
        rows = np.arange(block.start, block.stop)
        pictures = _standardized(own[rows])
        for column in range(near.shape[1]):
            others = near[rows, column]
            correlation = (pictures * _standardized(training[others])).sum(axis=1)
            found[rows] |= (correlation >= SIMILAR) & (others >= 0)
    return found


def _standardized(pictures: np.ndarray) -> np.ndarray:
    """Pixels minus their mean, scaled to length 1: `[n, pixels]`; 0 for a single-color picture."""
    flat = np.asarray(pictures, np.float32).reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    unit: np.ndarray = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return unit
