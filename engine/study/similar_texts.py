"""The training texts that say the same words as an example, whatever the model made of them.

    found = similar_texts(study, "test-17", k=20)
    found[0].text, found[0].score

Likeness in words (BM25) and influence answer different questions. `in_both` counts how many of the
strongest supporters are also among the most similar in words.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from engine.attribution.search.lexical import LexicalIndex
from engine.data.words import word_spans, words
from engine.store import layout
from engine.store.cache import FileCache
from engine.store.errors import DataloupeError
from engine.store.layout import Split
from engine.study.examples import TEXT, read_column, read_texts_of
from engine.study.names import read_names_of, resolve_row
from engine.study.rankings import find_influences
from engine.study.reader import StudyReader

MOST_BYTES = 1024 * 2**20
"""Indexes kept in memory."""
COMPARED = 20
"""How many supporters and how many similar texts are compared with each other."""
COMMON = 0.2
"""A word that more than this share of the training texts has says little by itself."""
PHRASE = 3
"""So many words in a row are shared wording even if each of them is common."""

_INDEXES: FileCache[LexicalIndex] = FileCache(MOST_BYTES, lambda index: index.nbytes)


@dataclass(frozen=True)
class SimilarText:
    """A training text that is similar in words.

    Attributes:
        score: BM25; comparable for one query only.
        shared: Its words that the query has too, in the order of the query.
    """

    row: int
    id: str
    label: str
    score: float
    text: str
    shared: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def lexical_index(study: StudyReader) -> LexicalIndex:
    """The BM25 index of the training texts, made when it is first used.

    Raises:
        DataloupeError: The examples have no texts.
    """
    return _INDEXES.get(layout.dataset_file(study.root), lambda: _index(study))


def _index(study: StudyReader) -> LexicalIndex:
    texts = read_column(study, "train", TEXT)
    if texts is None:
        raise DataloupeError(
            f"The examples of {study.root} have no texts. Texts are needed to compare words."
        )
    return LexicalIndex([words(text or "") for text in texts.to_pylist()])


def rows_similar_in_words(
    study: StudyReader, split: Split, row: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and BM25 of the k training texts most similar to an example, without itself."""
    (text,) = read_texts_of(study, split, TEXT, [row])
    without = row if split == "train" else None
    return lexical_index(study).nearest(words(text or ""), k, without)


def rows_similar_to_text(study: StudyReader, text: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The same for any text."""
    return lexical_index(study).nearest(words(text), k)


def similar_texts(
    study: StudyReader, example: int | str, k: int = 20, split: Split = "test"
) -> list[SimilarText]:
    """The k training texts that are most similar in words to an example, best first.

    Args:
        example: Id or row.
        split: Of the example. A training example is not similar to itself.

    Raises:
        UnknownName: There is no such example. DataloupeError: There are no texts, or k is below 1.
    """
    if k < 1:
        raise DataloupeError(f"k must be at least 1, not {k}.")
    row = resolve_row(study, split, example)
    rows, scores = rows_similar_in_words(study, split, row, k)
    (text,) = read_texts_of(study, split, TEXT, [row])
    return name_similar(study, text or "", rows, scores)


def name_similar(
    study: StudyReader, query: str, rows: np.ndarray, scores: np.ndarray
) -> list[SimilarText]:
    """Training rows and their BM25 for a query, with what is shown of them."""
    named = read_names_of(study, "train", rows)
    texts = read_texts_of(study, "train", TEXT, rows)
    asked = list(dict.fromkeys(words(query)))
    found = []
    for row, one, score, text in zip(rows, named, scores, texts, strict=True):
        own = set(words(text or ""))
        shared = [word for word in asked if word in own]
        found.append(
            SimilarText(
                int(row), str(one["id"]), str(one["label"]), float(score), text or "", shared
            )
        )
    return found


def shared_spans(study: StudyReader, text: str, other: str) -> list[tuple[int, int]]:
    """The parts of a text that say the same words as another text: (start, stop), in order.

    Marked are words that both have, unless they are common in the training texts, and any three or
    more words in a row that both have in a row.
    """
    index = lexical_index(study)
    own, theirs = words(text), words(other)
    present = set(theirs)
    phrases = {tuple(theirs[at : at + PHRASE]) for at in range(len(theirs) - PHRASE + 1)}
    pairs = set(pairwise(theirs))
    shared = [word in present and index.share_of_texts(word) <= COMMON for word in own]
    for at in range(len(own) - PHRASE + 1):
        if tuple(own[at : at + PHRASE]) in phrases:
            shared[at : at + PHRASE] = [True] * PHRASE
    found: list[tuple[int, int]] = []
    last = -2
    for place, (start, stop) in enumerate(word_spans(text)):
        if not shared[place]:
            continue
        if last == place - 1 and (own[last], own[place]) in pairs:
            found[-1] = found[-1][0], stop
        else:
            found.append((start, stop))
        last = place
    return found


@dataclass(frozen=True)
class InBoth:
    """How many of the strongest supporters are among the texts most similar in words.

    Attributes:
        supporters, similar: How many of each were compared.
        both: Training rows that are among both, strongest supporter first.
    """

    supporters: int
    similar: int
    both: list[int]


def in_both(
    study: StudyReader,
    test: int | str,
    k: int = COMPARED,
    algorithm: str | None = None,
    method: str | None = None,
) -> InBoth:
    """Compare the k strongest supporters of a prediction with the k texts most similar in words.

    Raises:
        UnknownName: There is no such example, algorithm or method. StoreError: There are no
            scores yet. DataloupeError: There are no texts.
    """
    row = resolve_row(study, "test", test)
    support = find_influences(study, row, k, algorithm, method)[0]
    similar, _ = rows_similar_in_words(study, "test", row, k)
    return overlap(support, similar)


def overlap(support: np.ndarray, similar: np.ndarray) -> InBoth:
    """The same for rows that are at hand, strongest and most similar first."""
    places = set(similar.tolist())
    both = [int(row) for row in support if int(row) in places]
    return InBoth(len(support), len(similar), both)
