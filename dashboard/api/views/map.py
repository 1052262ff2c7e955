"""Map: training and test examples in the plane, close together if they act or look alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from dashboard.api.answer import Answer, Rows
from dashboard.api.head import Head, head
from dashboard.api.query import Query
from dashboard.read.maps import kinds_of, positions
from engine.store.errors import StoreError
from engine.store.layout import SPLITS, Split
from engine.study.names import read_names


@dataclass(frozen=True, kw_only=True)
class Point:
    """An example on the map. Coordinates have no unit.

    Attributes:
        split: `train` or `test`.
        row: Its row, from 0.
        id: Its id.
        label: Its label as text.
        x, y: Its place.
    """

    split: Split
    row: int
    id: str
    label: str
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Map(Head):
    """The attribution space, or the space of embeddings, in the plane.

    Attributes:
        kind: How it was drawn: `umap` or `pca` of the influences, or `embedding`: similar looks.
        points: Every training and test example.
    """

    kind: str
    points: list[Point] = field(default_factory=list)


def answer(query: Query) -> Answer:
    """Every example's place on the map."""
    study, algorithm, method = query.study, query.algorithm, query.method
    known = kinds_of(study, algorithm, method)
    if not known:
        raise StoreError(
            f"There is no map of {algorithm} by {method} yet. `dataloupe build {study.root}` "
            "draws it."
        )
    asked = query.one_of("kind", known, known[0])
    kind = next(one for one in known if one == asked)
    places = positions(study, kind, algorithm, method)

    def points() -> Iterator[Point]:
        for split in SPLITS:
            names = read_names(study, split)
            at = 0
            for batch in names.select(["id", "label"]).to_batches(max_chunksize=1024):
                for one in batch.to_pylist():
                    x, y = places[split][at].tolist()
                    yield Point(
                        split=split, row=at, id=str(one["id"]), label=str(one["label"]), x=x, y=y
                    )
                    at += 1

    return Answer(Map(**head(query), kind=kind), Rows("points", points(), True))
