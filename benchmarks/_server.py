"""A large synthetic study, served by the real dashboard server."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks._report import log
from engine import store
from engine.api import Study
from engine.running.launch import _start, _stop
from engine.store import fingerprint_of, layout
from engine.store.layout import ROWS_PER_SHARD, SPLITS
from engine.study.examples import shard_count
from tests.builders.synthetic_study import write_study

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".bench" / "pages"
N_TRAIN, N_TEST, TOP_K, WRONG = 50_000, 10_000, 100, 0.12


def large_study() -> Study:
    """50,000 training and 10,000 test pictures with random scores.

    The study is kept until the code that writes it or the layout of a study changes.
    """
    names = (
        "tests/builders/synthetic_study.py",
        "engine/store/layout.py",
        "engine/data/thumbnails.py",
        "benchmarks/_server.py",
    )
    code = [(ROOT / name).read_text() for name in names]
    root = CACHE / fingerprint_of(N_TRAIN, N_TEST, TOP_K, WRONG, code)
    if not root.exists():
        log(f"writing a study of {N_TRAIN:,} + {N_TEST:,} pictures to {root}")
        shutil.rmtree(CACHE, ignore_errors=True)
        unfinished = root.with_suffix(".tmp")
        study = write_study(
            unfinished, N_TRAIN, N_TEST, top_k=TOP_K, wrong=WRONG, name="Fifty thousand"
        )
        _write_pixels(study)
        unfinished.rename(root)
    return Study.open(root)


def _write_pixels(study: Study) -> None:
    """Arrays of noise as pictures: findings look for copies among them."""
    generator = np.random.default_rng(0)
    shape = (1, study.dataset.cell, study.dataset.cell)
    for split in SPLITS:
        for shard in range(shard_count(study, split)):
            rows = study.dataset.rows(split) - shard * ROWS_PER_SHARD
            size = (min(ROWS_PER_SHARD, rows), *shape)
            arrays = {"input": generator.integers(256, size=size, dtype=np.uint8)}
            path = layout.arrays_file(study.root, split, shard)
            store.write_tensors(path, arrays, study.dataset.fingerprint)


@dataclass(frozen=True)
class Server:
    """A running server: its URL and its process id."""

    url: str
    pid: int

    def memory_mb(self, field: str = "VmRSS") -> float:
        """A field of its /proc/PID/status, in MB. VmRSS includes pages of mapped files."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise KeyError(field)


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Server]:
    """Run `dataloupe serve` in a separate process, and wait until it responds."""
    child, url = _start(root, "127.0.0.1", None)
    try:
        yield Server(url, child.pid)
    finally:
        _stop(child)
