"""The studies of pairs that `benchmarks.clip` measures, and how large they are.

`DATALOUPE_CLIP_SIZE` is `whole`, `short` (the same study, with removals that take two hours of
one core) or `tiny` (whether every part runs; the numbers mean nothing).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks._server import ROOT
from benchmarks._study import built
from engine import Study
from engine.data.templates import spec_from_template


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
        planted: Test pairs with planted ones, of each kind.
        planted_seeds: Models without the planted pairs.
        random_removals: That replay is measured on.
        timed: Pairs in a round of timing.
    """

    folder: str = "clip"
    train: int | None = None
    test: int | None = None
    epochs: int = 15
    checkpoints: tuple[int, ...] = (1, 5, 10)
    masks: int = 80
    methods: tuple[str, ...] = ("ours", "together", "hybrid", "embedding")
    removed: tuple[int, ...] = (10, 50, 100)
    pairs: int = 30
    seeds: int = 5
    planted: int = 60
    planted_seeds: int = 5
    random_removals: int = 40
    timed: int = 512


WHOLE = Size()
SIZES = {
    "whole": WHOLE,
    "short": replace(
        WHOLE,
        methods=("ours", "together", "embedding"),
        removed=(10, 50, 100),
        pairs=20,
        seeds=2,
        planted=30,
        planted_seeds=3,
        random_removals=20,
    ),
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
        planted_seeds=1,
        random_removals=4,
        timed=64,
    ),
}
SIZE = SIZES[os.environ.get("DATALOUPE_CLIP_SIZE", "whole")]
_SMOOTH = """\
architecture_options = { activation = "gelu", pooling = "average" }
"""


def folder() -> Path:
    """Where results are kept."""
    return ROOT / ".bench" / SIZE.folder


def clip_study() -> Study:
    """The example with more checkpoints and a larger run bank."""
    return built(f"{SIZE.folder}/study", spec_of(SIZE.checkpoints[-1], SIZE.masks))


def smooth_study() -> Study:
    """The example with smooth towers and a lower rate, one checkpoint, and no bank."""
    spec = spec_of(1, 0).replace('"two-towers"\n', f'"two-towers"\n{_SMOOTH}')
    return built(f"{SIZE.folder}/smooth", spec.replace("= 3e-3", "= 1e-3"))


def spec_of(checkpoints: int, masks: int) -> str:
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
