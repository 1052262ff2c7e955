"""Likeness in words: BM25 of training texts, with each other text as the query.

For a query q and a text d (Robertson and Zaragoza 2009, in Lucene's variant, whose weights are
never negative), with f the number of times a word is in d:

    score(q, d) = Σ_{w in q} ln(1 + (N − n_w + ½) / (n_w + ½)) · f / (f + k₁ (1 − b + b |d| / avg))

Rare words count more than frequent ones, and long texts gain nothing by their length. It knows
nothing of a model: a text that is similar in words need not have caused anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bm25s import BM25

K1, B = 1.5, 0.75


class LexicalIndex:
    """Texts, each a list of words, that can be searched by BM25.

    The same texts give the same scores bit by bit.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self.size = len(texts)
        # Sorted: a set has a different order in every process.
        self._vocabulary = {
            word: place for place, word in enumerate(sorted({w for text in texts for w in text}))
        }
        self._index: BM25 | None = None
        if self._vocabulary:
            from bm25s import BM25

            self._index = BM25(k1=K1, b=B, method="lucene", auto_compile=False)
            ids = [[self._vocabulary[word] for word in text] for text in texts]
            self._index.index(
                (ids, self._vocabulary), create_empty_token=False, show_progress=False
            )

    @property
    def nbytes(self) -> int:
        """Size in memory, without the words themselves."""
        if self._index is None:
            return 0
        arrays = (self._index.scores[name] for name in ("data", "indices", "indptr"))
        return sum(int(array.nbytes) for array in arrays)

    def scores(self, words: Sequence[str]) -> np.ndarray:
        """BM25 of every text for a query, float32 `[n]`; words that no text has count nothing."""
        known = [self._vocabulary[word] for word in words if word in self._vocabulary]
        if self._index is None or not known:
            return np.zeros(self.size, np.float32)
        found: np.ndarray = self._index.get_scores_from_ids(known)
        return found

    def share_of_texts(self, word: str) -> float:
        """Share of the texts that have a word."""
        place = self._vocabulary.get(word)
        if self._index is None or place is None:
            return 0.0
        ends = self._index.scores["indptr"]
        return float(ends[place + 1] - ends[place]) / self.size

    def nearest(
        self, words: Sequence[str], k: int, without: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores of the k best texts, best first, equal ones in the order of the data.

        Texts that share no word with the query are left out, so there may be fewer than k.

        Args:
            without: A row to leave out: the query itself, if it is one of the texts.
        """
        scores = self.scores(words)
        if without is not None:
            scores[without] = 0
        shared = np.flatnonzero(scores > 0)
        rows = shared[np.argsort(-scores[shared], kind="stable")][:k]
        return rows, scores[rows]
