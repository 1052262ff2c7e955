"""The known names most similar to an unknown one, for error messages.

    did_you_mean("resnet19", ["mlp", "resnet9"])   # " Did you mean 'resnet9'?"

A few hundred names are compared by difflib. From larger tables, the names with the longest common
beginning and end are selected first, so a million ids take a fraction of a second.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FEW = 200
LONGEST = 200
"""Longer words are not compared: they are pasted text, not names."""
_BLOCK = 2**17


def did_you_mean(word: str, names: Iterable[str] | pa.ChunkedArray) -> str:
    """A “Did you mean” sentence with a space before it; empty if no name is similar."""
    found = [repr(name) for name in nearest(word, names)]
    if not found:
        return ""
    *first, last = found
    return f" Did you mean {', '.join(first)} or {last}?" if first else f" Did you mean {last}?"


def nearest(word: str, names: Iterable[str] | pa.ChunkedArray, most: int = 3) -> list[str]:
    """The names most similar to a word, best first."""
    if not 0 < len(word) <= LONGEST:
        return []
    some = _candidates(word, names) if isinstance(names, pa.ChunkedArray) else list(names)
    plain, word = {name.casefold(): name for name in reversed(some)}, word.casefold()
    found = difflib.get_close_matches(word, plain, max(1, len(plain)))

    def order(name: str) -> tuple[float, bool, str]:
        # Among equally similar names, those with the same letters in a different order come first.
        ratio = difflib.SequenceMatcher(None, name, word).ratio()
        return -ratio, sorted(name) != sorted(word), name

    return [plain[name] for name in sorted(found, key=order)[:most]]


def _candidates(word: str, names: pa.ChunkedArray) -> list[str]:
    """The names that share the longest beginning and end with a word."""
    found: list[str] = []
    scores: list[np.ndarray] = []
    letters = word.encode("utf-8", "replace")
    reach = max(3, len(letters) // 3)
    for start in range(0, len(names), _BLOCK):
        block = names.slice(start, _BLOCK).combine_chunks()
        block = block if isinstance(block, pa.Array) else block.chunk(0)
        sizes = pc.binary_length(block).to_numpy(zero_copy_only=False)
        block = block.filter(pa.array(np.abs(sizes - len(letters)) <= reach))
        if not len(block):
            continue
        score = _shared(block, letters)
        best = np.argsort(-score, kind="stable")[:FEW]
        found += block.take(pa.array(best)).to_pylist()
        scores.append(score[best])
    if not found:
        return []
    order = np.argsort(-np.concatenate(scores), kind="stable")[:FEW]
    return [found[place] for place in order]


def _shared(names: pa.Array, letters: bytes) -> np.ndarray:
    """Share of bytes that each name has in common with a word, from both ends."""
    _, offsets, content = names.cast(pa.large_string()).buffers()
    ends = np.frombuffer(offsets, np.int64)[: len(names) + 1]
    signs = np.frombuffer(content, np.uint8) if content else np.zeros(1, np.uint8)
    starts, stops = ends[:-1], ends[1:]
    total = np.zeros(len(names), np.int64)
    for backwards in (False, True):
        equal = np.ones(len(names), bool)
        for step, letter in enumerate(reversed(letters) if backwards else letters):
            places = stops - 1 - step if backwards else starts + step
            equal &= (places >= starts) & (places < stops)
            if not equal.any():
                break
            equal &= signs[np.clip(places, 0, len(signs) - 1)] == letter
            total += equal
    shortest = np.minimum(stops - starts, len(letters))
    result: np.ndarray = np.minimum(total, shortest) / np.maximum(stops - starts, len(letters))
    return result
