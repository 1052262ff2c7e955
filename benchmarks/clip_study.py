"""The studies of pairs that `benchmarks.clip` measures, and how large they are.

`DATALOUPE_CLIP_SIZE` is `whole`, `short` (the same study, with removals that take half an hour of
one core) or `tiny` (whether every part runs; the numbers mean nothing).
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from benchmarks._server import ROOT
from benchmarks._study import built
from engine import Study
from engine.data.templates import spec_from_template
from engine.store.layout import SPLITS
from engine.store.rows import evenly_spread


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        folder: Of studies and results, below `.bench`.
        train, test: Pairs; None: all of the example.
        epochs: Of every training.
        checkpoints: Of the study, and the numbers of them that LDS is reported for.
        masks: Of its run bank.
        methods: Whose strongest pairs are removed, beside random ones.
        removed: How many are removed.
        pairs: Test pairs that lose their strongest supporters.
        seeds: Models without each removal set.
        planted: Test pairs with planted twins, and as many with swapped ones.
        random_removals: That replay is measured on.
        timed: Pairs in a round of timing.
    """

    folder: str = "clip"
    train: int | None = None
    test: int | None = None
    epochs: int = 15
    checkpoints: tuple[int, ...] = (1, 5, 10)
    masks: int = 80
    methods: tuple[str, ...] = ("ours", "hybrid", "embedding")
    removed: tuple[int, ...] = (10, 50, 100)
    pairs: int = 30
    seeds: int = 5
    planted: int = 60
    random_removals: int = 40
    timed: int = 512


WHOLE = Size()
SIZES = {
    "whole": WHOLE,
    "short": replace(WHOLE, methods=("ours", "embedding"), removed=(50,), pairs=20, seeds=2),
    "tiny": Size(
        folder="clip-tiny",
        train=300,
        test=40,
        epochs=2,
        checkpoints=(1, 2),
        masks=15,
        removed=(10,),
        pairs=2,
        seeds=1,
        planted=4,
        random_removals=4,
        timed=64,
    ),
}
SIZE = SIZES[os.environ.get("DATALOUPE_CLIP_SIZE", "whole")]
TWINS = 5
"""Planted pairs for each test pair, as many as precision is measured at."""

_SMOOTH = """\
architecture_options = { activation = "gelu", pooling = "average" }
"""


def folder() -> Path:
    """Where results are kept."""
    return ROOT / ".bench" / SIZE.folder


def clip_study() -> Study:
    """The example with more checkpoints and a larger run bank."""
    return built(f"{SIZE.folder}/study", _spec(SIZE.checkpoints[-1], SIZE.masks))


def smooth_study() -> Study:
    """The example with smooth towers and a lower rate, one checkpoint, and no bank."""
    spec = _spec(1, 0).replace('"two-towers"\n', f'"two-towers"\n{_SMOOTH}')
    return built(f"{SIZE.folder}/smooth", spec.replace("= 3e-3", "= 1e-3"))


def planted_study() -> Study:
    """The example with the pairs of `plant` in training, the checkpoints that count, no bank."""
    source = folder() / "planted-pairs"
    if not source.exists():
        plant(source)
    spec = _spec(SIZE.checkpoints[1], 0).replace('"emoji"', f'"{source}"')
    return built(f"{SIZE.folder}/planted", _without_limits(spec))


def _spec(checkpoints: int, masks: int) -> str:
    limits = [
        f"{split}_limit = {count}\n"
        for split, count in (("train", SIZE.train), ("test", SIZE.test))
        if count is not None
    ]
    found = spec_from_template("captions")
    for old, new in (
        ('source = "emoji"\n', 'source = "emoji"\n' + "".join(limits)),
        ("checkpoints = 5", f"checkpoints = {checkpoints}"),
        ("epochs = 15", f"epochs = {SIZE.epochs}"),
        ("masks = 40", f"masks = {masks}"),
    ):
        if old not in found:
            raise ValueError(f"the template 'captions' no longer has {old!r}")
        found = found.replace(old, new)
    return found


def _without_limits(spec: str) -> str:
    return "".join(line for line in spec.splitlines(True) if "_limit = " not in line)


# --- planted pairs --------------------------------------------------------------------------------


def plant(target: Path) -> None:
    """Write the example with planted pairs as a folder of rows and pictures.

    Half of the chosen test pairs get `TWINS` near duplicates in training: their picture turned,
    shrunk and recolored, with their caption in another order (`twin`, the test row). The other half
    get as many with the captions of random training pairs (`swapped`).
    """
    generator = np.random.default_rng(0)
    pairs = {
        split: _example(split, count)
        for split, count in zip(SPLITS, (SIZE.train, SIZE.test), strict=True)
    }
    (target / "pictures").mkdir(parents=True)
    rows: dict[str, list[dict[str, Any]]] = {}
    for split, some in pairs.items():
        rows[split] = [
            _row(target, f"{split}-{number}", picture, caption)
            for number, (picture, caption) in enumerate(some)
        ]
    chosen = evenly_spread(len(pairs["test"]), 2 * SIZE.planted)
    captions = [caption for _, caption in pairs["train"]]
    for place, test in enumerate(chosen.tolist()):
        picture, caption = pairs["test"][test]
        kind = "swapped" if place % 2 else "twin"
        for twin in range(TWINS):
            words = captions[generator.integers(len(captions))] if place % 2 else _turned(caption)
            file, changed = f"{kind}-{test}-{twin}", near_duplicate(picture, generator)
            rows["train"].append({**_row(target, file, changed, words), kind: test})
    for name, some_rows in rows.items():
        _write(target / f"{name}.csv", some_rows)


def near_duplicate(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """The picture turned a little, shrunk, and with its colors scaled."""
    side = picture.width
    small = max(8, round(side * generator.uniform(0.75, 0.95)))
    turned = picture.rotate(
        generator.uniform(-12, 12), Image.Resampling.BILINEAR, fillcolor="white"
    )
    x, y = (int(value) for value in generator.integers(0, side - small + 1, 2))
    canvas = Image.new("RGB", picture.size, "white")
    canvas.paste(turned.resize((small, small)), (x, y))
    scaled = np.asarray(canvas) * generator.uniform(0.8, 1.0, 3)
    return Image.fromarray(scaled.round().astype(np.uint8))


def _example(split: str, count: int | None) -> list[tuple[Image.Image, str]]:
    table = pq.read_table(ROOT / "assets" / "emoji" / f"{split}.parquet")
    rows = range(table.num_rows) if count is None else evenly_spread(table.num_rows, count).tolist()
    found = []
    for row in rows:
        picture = Image.open(io.BytesIO(table["image"][row].as_py()["bytes"]))
        found.append((_on_white(picture), table["caption"][row].as_py()))
    return found


def _on_white(picture: Image.Image) -> Image.Image:
    whole = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(whole, picture.convert("RGBA")).convert("RGB")


def _turned(caption: str) -> str:
    """The names and keywords of a caption, the last first."""
    return ", ".join(reversed(caption.split(", ")))


def _row(target: Path, name: str, picture: Image.Image, caption: str) -> dict[str, Any]:
    file = f"pictures/{name}.png"
    picture.save(target / file)
    return {"file_name": file, "caption": caption, "twin": -1, "swapped": -1}


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def planted_rows(study: Study, kind: str) -> Iterable[tuple[int, np.ndarray]]:
    """(test row, rows of the training pairs that were planted for it)."""
    of = study.table("train")[kind].to_numpy().astype(np.int64)
    for test in np.unique(of[of >= 0]).tolist():
        yield test, np.flatnonzero(of == test)
