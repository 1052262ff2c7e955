"""The studies of facts that `benchmarks.facts` measures, how large they are, and what is true.

`DATALOUPE_FACTS_SIZE` is `whole`, `short` (the example as it ships, with half
the run bank; less is measured) or `tiny` (whether every part runs; the numbers mean nothing).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from assets.make_facts import make, write
from benchmarks._server import ROOT
from benchmarks._study import built
from benchmarks.facts_traker import traker
from benchmarks.text_lds import gradient_cosine
from benchmarks.text_study import bm25, embedding_cosines, random_scores
from engine import Study
from engine.attribution.scores.factors import combine
from engine.build.batches import stored_out_to_loss
from engine.data.templates import spec_from_template
from engine.store.layout import HYBRID, SPLITS, TRAK, Split

EXAMPLE = 'source = "country-facts"\n'
STATEMENTS, FALSE = ("statement", "only statement"), "false statement"
"""Kinds of training rows that state a fact, and of those that contradict it."""


PEERS = ("bm25", "embedding", "gradient_cosine", "traker_1")
"""Other methods; random scores are none."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        folder: Of studies and results, below `.bench`.
        countries: Whose facts there are; None: all of the example.
        epochs: Of every training; None: as many as the example's.
        checkpoints: Of the studies that are measured.
        masks: Of the run bank of the last of them.
        test_masks: That LDS is measured on.
        removed: How many rows a question loses, and how many a step is taken on.
        losing: Methods whose rows are removed.
        questions: That lose rows.
        together: Questions whose rows are removed from the same model.
        seeds: Models without each removal set.
        replayed: Questions that replay explains.
        random_removals: That replay is measured on.
        timed: Rows in a round of timing.
    """

    folder: str = "facts"
    countries: int | None = None
    epochs: int | None = None
    checkpoints: tuple[int, ...] = (1, 5)
    masks: int = 80
    test_masks: int = 48
    removed: int = 5
    losing: tuple[str, ...] = ("ours_1", "ours_5", "hybrid", "bm25", "embedding", "random")
    questions: int = 100
    together: int = 5
    seeds: int = 3
    replayed: int = 8
    random_removals: int = 40
    timed: int = 1024


WHOLE = Size()
SIZES = {
    "whole": WHOLE,
    "short": replace(
        WHOLE,
        folder="facts-short",
        masks=40,
        test_masks=24,
        losing=("ours_5", "bm25", "embedding", "random"),
        questions=200,
        together=40,
        random_removals=16,
    ),
    "tiny": Size(
        folder="facts-tiny",
        countries=24,
        epochs=3,
        checkpoints=(1, 2),
        masks=15,
        test_masks=6,
        removed=3,
        losing=("ours_2", "bm25", "random"),
        questions=4,
        together=2,
        seeds=1,
        replayed=2,
        random_removals=4,
        timed=64,
    ),
}
SIZE = SIZES[os.environ.get("DATALOUPE_FACTS_SIZE", "whole")]
MOST = SIZE.checkpoints[-1]


def folder() -> Path:
    """Where results are kept."""
    return ROOT / ".bench" / SIZE.folder


def facts_study(checkpoints: int = MOST) -> Study:
    """The example with so many checkpoints; with the most of them, a run bank, too."""
    masks = SIZE.masks if checkpoints == MOST else 0
    return built(f"{SIZE.folder}/study-{checkpoints}", _spec(checkpoints, masks))


def _spec(checkpoints: int, masks: int) -> str:
    found = _replaced(
        spec_from_template("facts"),
        ("checkpoints = 5", f"checkpoints = {checkpoints}"),
        ("masks = 40", f"masks = {masks}"),
    )
    if SIZE.epochs is not None:
        found = _replaced(found, ("epochs = 15", f"epochs = {SIZE.epochs}"))
    if SIZE.countries is not None:
        source = folder() / f"facts-{SIZE.countries}"
        write(make(countries=SIZE.countries), source)
        found = _replaced(found, (EXAMPLE, f'source = "{source}"\n'))
    return found


def _replaced(spec: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        if old not in spec:
            raise ValueError(f"the template 'facts' no longer has {old!r}")
        spec = spec.replace(old, new)
    return spec


# --- what is true ---------------------------------------------------------------------------------


def stating(study: Study, kinds: tuple[str, ...] = STATEMENTS) -> np.ndarray:
    """Which training rows of these kinds are about the fact of a question, `[n_test, n_train]`."""
    tables = {split: study.table(split) for split in SPLITS}
    facts = {
        split: np.array([f"{one}\n{other}" for one, other in zip(*columns, strict=True)])
        for split, table in tables.items()
        for columns in [(table["relation"], table["subject"])]
    }
    same: np.ndarray = facts["test"][:, None] == facts["train"][None]
    return same & np.isin(tables["train"]["kind"].to_numpy(), kinds)[None]


# --- methods --------------------------------------------------------------------------------------


def sources(study: Study, split: Split) -> list[str]:
    return [str(text) for text in study.table(split)["source"]]


def both_texts(study: Study, split: Split) -> list[str]:
    """Source and target in one text."""
    targets = study.table(split)["target"]
    return [f"{one} {other}" for one, other in zip(sources(study, split), targets, strict=True)]


def _bm25_of(texts: Callable[[Study, Split], list[str]]) -> Callable[[], np.ndarray]:
    def scores() -> np.ndarray:
        study = facts_study()
        return bm25(*(texts(study, split) for split in SPLITS))

    return scores


def _ours(checkpoints: int, method: str = TRAK) -> Callable[[], np.ndarray]:
    def scores() -> np.ndarray:
        study = facts_study(checkpoints)
        return study.scores(np.arange(study.dataset.n_test), None, method)

    return scores


def _traker() -> np.ndarray:
    study = facts_study()
    return combine(traker(study, 0), 1, stored_out_to_loss(study, next(iter(study.algorithms)), 0))


METHODS: dict[str, Callable[[], np.ndarray]] = {
    **{f"ours_{count}": _ours(count) for count in SIZE.checkpoints},
    "hybrid": _ours(MOST, HYBRID),
    "bm25": _bm25_of(both_texts),
    "bm25_source": _bm25_of(sources),
    "embedding": lambda: embedding_cosines(facts_study(), MOST),
    "gradient_cosine": lambda: gradient_cosine(facts_study(), 0),
    "traker_1": functools.cache(_traker),
    "random": lambda: random_scores(facts_study(), 0),
}
"""Name → scores `[n_test, n_train]`. `bm25` reads sources and targets, questions' answers too."""
