"""The names most like one that does not exist."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest

from engine.study.nearest import did_you_mean, nearest


@pytest.mark.parametrize(
    ("word", "names", "found"),
    [
        ("mpl", ["mlp", "resnet9", "cnn"], ["mlp"]),
        ("RESNET9", ["mlp", "resnet9"], ["resnet9"]),
        ("0018", ["0017", "0081", "zebra"], ["0017", "0081"]),
        ("17", ["0017", "9"], ["0017"]),
        ("nothing like it", ["mlp"], []),
        ("", ["mlp", ""], []),
        ("x" * 10_000, ["x" * 10_000], []),
        ("mlp", [], []),
    ],
)
def test_the_nearest_names(word: str, names: list[str], found: list[str]) -> None:
    assert sorted(nearest(word, names)) == sorted(found)
    assert sorted(nearest(word, pa.chunked_array([names], pa.string()))) == sorted(found)


def test_the_question() -> None:
    assert did_you_mean("x", []) == ""
    assert did_you_mean("aab", ["aaa"]) == " Did you mean 'aaa'?"
    assert did_you_mean("aab", ["aaa", "aac"]) == " Did you mean 'aaa' or 'aac'?"
    assert did_you_mean("aab", ["aaa", "aac", "abb"]).endswith("'aac' or 'abb'?")


@pytest.mark.parametrize(("n", "seconds"), [(50_000, 1.0), (1_280_000, 10.0)])
def test_large_tables_answer_at_once(n: int, seconds: float) -> None:
    """A quiet machine takes 20 ms and 200 ms."""
    parts = [
        pa.array([f"images/n{row:07d}.JPEG" for row in range(start, min(n, start + 4096))])
        for start in range(0, n, 4096)
    ]
    ids = pa.chunked_array(parts)
    start = time.perf_counter()
    assert nearest("images/n0012345.JPG", ids)[0] == "images/n0012345.JPEG"
    assert nearest("image/n0049999.JPEG", ids)[0] == "images/n0049999.JPEG"
    assert nearest("images/n0012354.JPEG".replace("n", "m"), ids)[0] == "images/n0012354.JPEG"
    assert time.perf_counter() - start < 3 * seconds
