"""Rank every example of both sides in one pass over a method's scores, cut into parts.

A part is a range of training examples that one worker passes over. It writes the top-k of its
training examples, in shards, and at the end a file with the test side: the top-k among its training
examples, and its sums. So a pass that is stopped continues with the first part that is missing,
several workers share it, and the joined result is the same to the byte, since the top-k is exact
and sums are added in the order of the parts, which depend on neither workers nor memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine import store
from engine.attribution.scores.matrix import Scores
from engine.attribution.scores.read_ahead import Seconds
from engine.attribution.scores.strongest import Strongest, TopK
from engine.attribution.scores.top_k import merge, rank, stacked
from engine.attribution.scores.totals import Totals
from engine.store import layout
from engine.store.layout import ROWS_PER_SHARD
from engine.store.rows import ranges
from engine.store.text import counted
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_score_matrix

SHARDS_PER_PART = 8
"""A part writes 16·k bytes for each test example: with 50,000 of them and k = 100 an eighth of this
would be 25 GB at 1.28 million training examples, twelve times what the training side takes."""
_MERGED_AT_ONCE = 4096
_TOLD_FROM_SECONDS = 60


@dataclass(frozen=True)
class Part:
    """A range of training examples to pass over."""

    root: Path
    algorithm: str
    method: str
    fingerprint: str
    number: int
    n_train: int

    @property
    def trains(self) -> range:
        rows = SHARDS_PER_PART * ROWS_PER_SHARD
        return range(self.number * rows, min((self.number + 1) * rows, self.n_train))

    @property
    def file(self) -> Path:
        return layout.top_part_file(self.root, self.algorithm, self.method, self.number)

    def shard_file(self, shard: int) -> Path:
        return layout.top_train_file(self.root, self.algorithm, self.method, shard)


def parts_of(root: Path, algorithm: str, method: str, fingerprint: str, n_train: int) -> list[Part]:
    """All parts of a method's pass over `n_train` training examples, in order."""
    return [
        Part(root, algorithm, method, fingerprint, number, n_train)
        for number in range(-(-n_train // (SHARDS_PER_PART * ROWS_PER_SHARD)))
    ]


def missing(parts: Iterable[Part]) -> list[Part]:
    """The parts that are not ranked yet; what was made from other scores does not count."""
    return [part for part in parts if not _is_done(part)]


def _is_done(part: Part) -> bool:
    shards = range(part.trains.start // ROWS_PER_SHARD, -(-part.trains.stop // ROWS_PER_SHARD))
    if not all(_has(part.shard_file(shard), part.fingerprint) for shard in shards):
        return False
    return _has(part.file, part.fingerprint) or _joined(part)


def _joined(part: Part) -> bool:
    """Whether the parts were joined, after which their files are removed."""
    about = part.root, part.algorithm, part.method
    files = layout.top_test_file(*about), layout.totals_file(*about)
    return all(_has(path, part.fingerprint) for path in files)


def _has(path: Path, fingerprint: str) -> bool:
    return path.exists() and store.tensors_fingerprint(path) == fingerprint


def rank_part(part: Part) -> Seconds:
    """Worker: pass over a part of the scores; returns what the time went to."""
    study = StudyReader.open(part.root)
    scores = read_score_matrix(study, part.algorithm, part.method)
    return pass_over(part, scores, study.spec.search.top_k)


def pass_over(part: Part, scores: Scores, k: int) -> Seconds:
    """Rank a part's training examples, and all test examples among them, and write both sides."""
    seconds, of_tests = Seconds(), Strongest(scores.n_test, k)
    totals = Totals.zeros(scores.n_test, scores.n_train)
    blocks: list[TopK] = []
    for rows, found in rank(scores, of_tests, part.trains, totals=totals, seconds=seconds):
        blocks.append(found)
        if rows.stop % ROWS_PER_SHARD == 0 or rows.stop == part.trains.stop:
            shard = part.shard_file((rows.stop - 1) // ROWS_PER_SHARD)
            store.write_tensors(shard, vars(stacked(blocks)), part.fingerprint)
            blocks.clear()
    mine = slice(part.trains.start, part.trains.stop)
    sums = {
        "test_support": totals.test_support,
        "test_oppose": totals.test_oppose,
        "train_support": totals.train_support[mine],
        "train_oppose": totals.train_oppose[mine],
    }
    store.write_tensors(part.file, {**vars(of_tests.top()), **sums}, part.fingerprint)
    return seconds


def join(parts: list[Part], n_test: int) -> TopK:
    """Write the test side of all parts as one file, and the sums; returns the test side."""
    first = parts[0]
    about = first.root, first.algorithm, first.method
    top, totals = layout.top_test_file(*about), layout.totals_file(*about)
    if not _joined(first):
        stored = [store.read_tensors(part.file, part.fingerprint) for part in parts]
        both = [
            merge([_top_of(one, rows) for one in stored])
            for rows in ranges(range(n_test), _MERGED_AT_ONCE)
        ]
        store.write_tensors(top, vars(stacked(both)), first.fingerprint)
        sums = {
            name: np.sum([one[name] for one in stored], axis=0)
            for name in ("test_support", "test_oppose")
        } | {
            name: np.concatenate([one[name] for one in stored])
            for name in ("train_support", "train_oppose")
        }
        rounded = {name: array.astype(np.float32) for name, array in sums.items()}
        store.write_tensors(totals, rounded, first.fingerprint)
    for part in parts:
        part.file.unlink(missing_ok=True)
    return TopK(**store.read_tensors(top, first.fingerprint))


def _top_of(part: dict[str, np.ndarray], tests: range) -> TopK:
    rows = slice(tests.start, tests.stop)
    names = "support_index", "support_score", "oppose_index", "oppose_score"
    return TopK(**{name: part[name][rows] for name in names})


def speed_note(seconds: Seconds, n_scores: int) -> str:
    """What a long pass was limited by, a sentence for people; empty for a short one."""
    total = seconds.waiting + seconds.multiplying + seconds.selecting
    if total < _TOLD_FROM_SECONDS:
        return ""
    shares = {
        "reading features": seconds.waiting,
        "multiplying": seconds.multiplying,
        "selecting": seconds.selecting,
    }
    return (
        f"Ranked {counted(n_scores, 'score')} in {total / 60:.1f} minutes of workers, limited by "
        f"the {seconds.bound}: "
        + ", ".join(f"{value / total:.0%} {name}" for name, value in shares.items())
        + "."
    )
