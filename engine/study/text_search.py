"""Find examples by the words and the length of their texts.

    find_texts(study, "test", words='refund "late delivery"', length=(5, 40))

Works for every study whose examples have a text. What is searched is kept in memory until the data
change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.data.word_search import parse_query, searchable
from engine.store import layout
from engine.store.cache import FileCache
from engine.store.errors import DataloupeError
from engine.store.layout import Split
from engine.study.examples import TEXT, read_column
from engine.study.reader import StudyReader

MOST_BYTES = 512 * 2**20
"""Searchable texts kept in memory, of all splits and studies together."""


@dataclass(frozen=True)
class SearchableTexts:
    """The texts of a split, prepared for searching.

    Attributes:
        lines: `searchable` of each text.
        texts: The texts as they are.
        lengths: Number of words of each text, int64.
    """

    lines: pa.ChunkedArray
    texts: pa.ChunkedArray
    lengths: np.ndarray

    @property
    def nbytes(self) -> int:
        return int(self.lines.nbytes + self.lengths.nbytes)

    def matching(self, query: str) -> np.ndarray:
        """Which texts contain all terms of a query, bool `[n]`; all for an empty query."""
        found = np.ones(len(self.lines), dtype=bool)
        for term in parse_query(query):
            column = self.lines if term.in_words else self.texts
            inside = pc.match_substring(column, term.needle).fill_null(False)
            found &= inside.to_numpy(zero_copy_only=False).astype(bool)
        return found


_SEARCHABLE: FileCache[SearchableTexts] = FileCache(MOST_BYTES, lambda texts: texts.nbytes)
_BLOCK = 4096


def has_texts(study: StudyReader) -> bool:
    """Whether the examples have texts that can be searched."""
    return study.has_data and read_column(study, "test", TEXT) is not None


def searchable_texts(study: StudyReader, split: Split) -> SearchableTexts:
    """The texts of a split, prepared once.

    Raises:
        DataloupeError: The examples have no texts.
    """
    path = layout.dataset_file(study.root)
    return _SEARCHABLE.get(path, lambda: _prepared(study, split), split)


def _prepared(study: StudyReader, split: Split) -> SearchableTexts:
    texts = read_column(study, split, TEXT)
    if texts is None:
        raise DataloupeError(f"The examples of {study.root} have no texts to search.")
    texts = texts.cast(pa.large_string())
    lines = []
    lengths = np.empty(len(texts), np.int64)
    for start in range(0, len(texts), _BLOCK):
        block = [searchable(text or "") for text in texts.slice(start, _BLOCK).to_pylist()]
        lengths[start : start + len(block)] = [len(line.split()) for line in block]
        lines.append(pa.array(block, pa.large_string()))
    return SearchableTexts(pa.chunked_array(lines, pa.large_string()), texts, lengths)


def text_lengths(study: StudyReader, split: Split) -> np.ndarray:
    """Number of words of each text, int64."""
    return searchable_texts(study, split).lengths


def find_texts(
    study: StudyReader,
    split: Split,
    words: str = "",
    length: tuple[int | None, int | None] = (None, None),
) -> np.ndarray:
    """Rows of the texts that contain the words and have so many words, ascending.

    Args:
        words: Words that must all be in the text, in any order, ignoring case and accents; a
            phrase in quotes; the beginning of a word with a star, `begin*`.
        length: Fewest and most words, both included; None for no limit.

    Raises:
        DataloupeError: The examples have no texts.
    """
    found = searchable_texts(study, split)
    keep = found.matching(words)
    fewest, most = length
    if fewest is not None:
        keep &= found.lengths >= fewest
    if most is not None:
        keep &= found.lengths <= most
    return np.flatnonzero(keep)
