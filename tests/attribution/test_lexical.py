"""BM25 of the training texts, against the formula written out."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from engine.attribution.search.lexical import K1, B, LexicalIndex

WORDS = ["the", "cook", "loved", "soup", "a", "film", "hated", "long", "walk", "电", "影"]


def some_texts(n: int, seed: int = 0) -> list[list[str]]:
    generator = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(WORDS) + 1)
    return [
        generator.choice(WORDS, size=size, p=weights / weights.sum()).tolist()
        for size in generator.integers(0, 12, n)
    ]


def bm25(query: list[str], texts: list[list[str]]) -> list[float]:
    """The formula of the module's docstring, without any shortcut."""
    n = len(texts)
    mean = sum(map(len, texts)) / n
    scores = []
    for text in texts:
        counts, score = Counter(text), 0.0
        for word in query:
            having = sum(word in other for other in texts)
            rarity = math.log(1 + (n - having + 0.5) / (having + 0.5))
            length = K1 * (1 - B + B * len(text) / mean)
            score += rarity * counts[word] / (counts[word] + length) if counts[word] else 0.0
        scores.append(score)
    return scores


@pytest.mark.parametrize(
    "query",
    [["loved", "soup"], ["soup", "soup", "电"], ["the"], ["unheard"], [], WORDS],
    ids=["two", "repeated", "frequent", "unknown", "empty", "all"],
)
def test_scores_are_those_of_the_formula(query: list[str]) -> None:
    texts = some_texts(40)
    index = LexicalIndex(texts)
    np.testing.assert_allclose(index.scores(query), bm25(query, texts), rtol=2e-6)


def test_nearest_are_sorted_with_ties_in_the_order_of_the_data_and_without_itself() -> None:
    texts = [["soup"], ["film"], ["soup"], ["soup", "film"], []]
    index = LexicalIndex(texts)
    rows, scores = index.nearest(["soup"], 10)
    assert rows.tolist() == [0, 2, 3]
    assert scores[0] == scores[1] > scores[2] > 0
    assert index.nearest(["soup"], 10, without=0)[0].tolist() == [2, 3]
    assert index.nearest(["soup"], 1)[0].tolist() == [0]
    assert index.share_of_texts("soup") == 3 / 5
    assert index.share_of_texts("unheard") == 0


@pytest.mark.parametrize("texts", [[], [[]], [[], []]], ids=["none", "empty", "two empty"])
def test_texts_without_words(texts: list[list[str]]) -> None:
    index = LexicalIndex(texts)
    assert index.scores(["soup"]).tolist() == [0.0] * len(texts)
    assert not len(index.nearest(["soup"], 3)[0])


def test_the_same_bytes_in_every_process() -> None:
    script = (
        "from tests.attribution.test_lexical import some_texts, WORDS\n"
        "from engine.attribution.search.lexical import LexicalIndex\n"
        "print(LexicalIndex(some_texts(40)).scores(WORDS).tobytes().hex())"
    )
    here = LexicalIndex(some_texts(40)).scores(WORDS).tobytes().hex()
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == here
