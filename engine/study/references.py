"""Pictures of a study that keeps them by reference."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from engine.data.fitting import fit_of, is_by_reference
from engine.data.places.decoded import DecodedPictures, References
from engine.data.places.place import source_folder
from engine.store import layout
from engine.store.cache import Stamps, stamps_of
from engine.store.files import read_table
from engine.store.layout import ROWS_PER_SHARD, Split
from engine.study.reader import StudyReader

PLACE, DIGEST = "place", "digest"
"""Columns of the tables of references."""


def has_references(study: StudyReader) -> bool:
    """Whether a study keeps where its pictures lie, and not their pixels."""
    return is_by_reference(study.dataset.encoding)


def referenced_pictures(
    study: StudyReader, split: Split, rows: range | None = None
) -> DecodedPictures:
    """The pictures of a split, or of some of its rows, as an array that decodes them."""
    return DecodedPictures(
        rows if rows is not None else range(study.dataset.rows(split)),
        references(study, split),
        source_folder(study.spec.data.source, study.root),
        fit_of(study.dataset.encoding),
        study.root,
    )


def references(study: StudyReader, split: Split) -> References:
    """Row → where its picture lies, and its digest. A shard is read when one of its rows is."""
    stamps = stamps_of([layout.dataset_file(study.root)])

    def found(row: int) -> tuple[str, bytes]:
        shard, place = divmod(row, ROWS_PER_SHARD)
        places, digests = _shard(study.root, split, shard, stamps)
        return places[place].as_py(), digests[place].as_py()

    return found


@lru_cache(maxsize=1024)
def _shard(root: Path, split: Split, shard: int, stamps: Stamps) -> tuple[pa.Array, pa.Array]:
    """Places and digests of a shard's rows.

    Args:
        stamps: Of the dataset, so that another build's are read anew.
    """
    table = read_table(layout.references_file(root, split, shard), columns=[PLACE, DIGEST])
    return table[PLACE].combine_chunks(), table[DIGEST].combine_chunks()
