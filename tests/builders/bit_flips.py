"""Flip random bits in every kind of file of a study, and see whether `doctor` finds each.

    python -m tests.builders.bit_flips STUDY 1400

The study is copied first, and gets files of the kinds that it lacks: what people keep, an upload,
imported scores, jobs.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from engine import Study
from engine.running.jobs.database import connected, home
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.study.doctor import problem_of
from engine.study.reader import open_to_repair
from engine.study.removal_sets import keep_set
from engine.study.slices import save_slice
from engine.study.tags import note, tag
from engine.study.uploads import Upload, UploadedFile, write_upload
from tests.builders.copies import copy_of

_UNUSED = b"\0"
"""Stands for bytes of a database that SQLite does not use: a flip there changes nothing."""


def bit_flips(study: Study, n: int, seed: int) -> dict[str, object]:
    """Flip `n` bits, one at a time, spread evenly over the kinds of files of a copy of the study.

    Returns:
        `flips`, `called_whole`, `crashed`, the number of `kinds`, and `missed`: up to 20 lines of
        file, byte and bit. Flips of bytes that a database does not use are not made.
    """
    rng = random.Random(seed)
    found: dict[str, object] = {"flips": 0, "called_whole": 0, "crashed": 0}
    missed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="flips-") as folder:
        root = with_every_kind_of_file(copy_of(study, Path(folder) / "study"), folder)
        kinds = kinds_of_files(root)
        counts = {"whole": 0, "crashed": 0}
        for number in range(n):
            files = kinds[sorted(kinds)[number % len(kinds)]]
            path = rng.choice(files)
            place, bit, how = _flip(root, path, rng)
            if how:
                counts[how] += 1
                missed.append(f"{how}: {path.relative_to(root)} byte {place} bit {bit}")
        found |= {"flips": n, "called_whole": counts["whole"], "crashed": counts["crashed"]}
        found |= {"kinds": len(kinds), "missed": missed[:20]}
    return found


def _flip(root: Path, path: Path, rng: random.Random) -> tuple[int, int, str]:
    """Flip a bit of a file, ask, and restore it: (byte, bit, "" or "whole" or "crashed")."""
    content = path.read_bytes()
    rows = _rows(path)
    while True:
        place, bit = rng.randrange(len(content)), rng.randrange(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        if path.suffix != ".sqlite" or _rows(path) != rows:
            break
    try:
        how = "" if problem_of(open_to_repair(root), path) is not None else "whole"
    except DataloupeError:
        how = ""
    except Exception:
        how = "crashed"
    for leftover in path.parent.glob(f"{path.name}-*"):
        leftover.unlink()
    path.write_bytes(content)
    return place, bit, how


def _rows(path: Path) -> object:
    """What a database holds, or the error when it is read."""
    if path.suffix != ".sqlite":
        return _UNUSED
    try:
        connection = sqlite3.connect(path)
        try:
            schema = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
            return schema.fetchall(), connection.execute("SELECT * FROM jobs").fetchall()
        finally:
            connection.close()
    except (sqlite3.Error, ValueError, OverflowError) as error:
        return repr(error)


def kinds_of_files(root: Path) -> dict[str, list[Path]]:
    """The files of a study by their kind: folder and suffix, without names and numbers."""
    kinds = defaultdict(list)
    for path in (*layout.stored_files(root), layout.spec_file(root)):
        parts = path.relative_to(root).parts[:-1]
        if path.suffix in (".safetensors", ".parquet", ".json", ".webp", ".sqlite", ".toml"):
            where = parts[2:3] if parts[:1] == ("algorithms",) else parts[:2]
            kinds["/".join(["algorithms"] * (parts[:1] == ("algorithms",)) + list(where))
                  + path.suffix].append(path)  # fmt: skip
    return dict(kinds)


def with_every_kind_of_file(study: Study, folder: str) -> Path:
    """Add what people keep, an upload, imported scores and jobs to a study; return its folder."""
    keep_set(study, [1, 2, 3], "three")
    save_slice(study, "mistakes", {"correct": "no"})
    algorithm = next(iter(study.spec.algorithms))
    tag(study, algorithm, 3, "odd")
    note(study, algorithm, 4, "why?")
    weights = save({"weight": np.ones((3, 4), np.float32)})
    sha256 = hashlib.sha256(weights).hexdigest()
    path = layout.uploaded_weights_file(study.root, sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(weights)
    file = UploadedFile(sha256, len(weights), "mine.safetensors")
    write_upload(
        study.root,
        Upload("upload-0123456789ab", "mine", "", "2026-01-01", "mlp", {}, (file,), "", ""),
    )
    scores = np.random.default_rng(0).normal(size=(study.dataset.n_test, study.dataset.n_train))
    np.save(Path(folder) / "scores.npy", scores.astype(np.float32))
    study.import_scores("npy", Path(folder) / "scores.npy")
    with connected(study.root, create=True) as connection:
        for number in range(30):
            connection.execute(
                "INSERT INTO jobs (home, kind, title, parameters, status, submitted) "
                "VALUES (?, 'build', ?, ?, 'done', ?)",
                (home(study.root), f"Job {number}", json.dumps({"n": number}), time.time()),
            )
    return study.root


if __name__ == "__main__":
    print(json.dumps(bit_flips(Study.open(sys.argv[1]), int(sys.argv[2]), seed=0), indent=2))
