"""`train_limit` and `test_limit` draw a stratified sample with the study's seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.sampling import sample_rows
from engine.data.sources import Source, load_source
from engine.store.errors import DataError
from engine.store.spec import DataSpec


def write_sorted(folder: Path, train: dict[str, int], test: dict[str, int]) -> None:
    """Texts sorted by class, as a folder of classes is."""
    for split, counts in (("train", train), ("test", test)):
        lines = [f"{split} {name} {n},{name}" for name, rows in counts.items() for n in range(rows)]
        (folder / f"{split}.csv").write_text("text,label\n" + "\n".join(lines) + "\n")


def sampled(folder: Path, seed: int = 0, **limits: int) -> Source:
    return load_source(DataSpec(source=str(folder), **limits), folder, seed=seed)  # type: ignore[arg-type]


def counts(source: Source) -> dict[str, int]:
    labels = np.array(source.train["label"][:])
    return {name: int((labels == i).sum()) for i, name in enumerate(source.classes)}


@pytest.mark.input_case
@pytest.mark.parametrize(
    ("classes", "limit", "expected"),
    [
        (dict.fromkeys("abcdefghij", 30), 100, dict.fromkeys("abcdefghij", 10)),
        ({"a": 90, "b": 9, "c": 1}, 10, {"a": 8, "b": 1, "c": 1}),
        ({"a": 60, "b": 30, "c": 10}, 10, {"a": 6, "b": 3, "c": 1}),
        ({"a": 3, "b": 2}, 5, {"a": 3, "b": 2}),
        ({"a": 3, "b": 2}, 50, {"a": 3, "b": 2}),
    ],
    ids=["ten sorted classes", "rare classes", "in proportion", "as many as rows", "more"],
)
def test_a_limit_keeps_every_class(
    classes: dict[str, int], limit: int, expected: dict[str, int], tmp_path: Path
) -> None:
    write_sorted(tmp_path, classes, {"a": 2, "b": 2})
    assert counts(sampled(tmp_path, train_limit=limit)) == expected


def test_the_seed_draws_the_rows_and_each_can_be_traced(tmp_path: Path) -> None:
    write_sorted(tmp_path, {"a": 50, "b": 50}, {"a": 20, "b": 20})
    first, again, other = (sampled(tmp_path, seed, train_limit=20) for seed in (1, 1, 2))
    assert first.train["source_row"][:] == again.train["source_row"][:]
    assert first.train["source_row"][:] != other.train["source_row"][:]
    rows = first.train["source_row"][:]
    assert rows == sorted(rows)
    whole = sampled(tmp_path)
    assert [whole.train[row]["input"] for row in rows] == first.train["input"][:]
    assert "source_row" not in whole.train.column_names
    assert "source_row" not in first.test.column_names
    assert first.description.endswith(", a stratified sample of its 100 and 40")
    assert "sample" not in whole.description


def test_a_limit_below_the_number_of_classes_says_so(tmp_path: Path) -> None:
    write_sorted(tmp_path, {"a": 5, "b": 5, "c": 5}, {"a": 2, "b": 2, "c": 2})
    with pytest.raises(DataError, match=r"train_limit = 2 .* leaves no example .* at least 3"):
        sampled(tmp_path, train_limit=2)
    with pytest.raises(DataError, match=r"train_limit = 1 .* leaves"):
        sampled(tmp_path, train_limit=1, test_limit=1)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    share=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_shares_are_whole_and_fair(sizes: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    limit = max(1, round(share * len(labels)))
    rows = sample_rows(labels, limit, seed, "train")
    assert len(rows) == min(limit, len(labels))
    assert (np.diff(rows) > 0).all()
    found = np.bincount(labels[rows], minlength=len(sizes))
    exact = np.array(sizes) * limit / len(labels)
    if limit >= len(sizes):
        assert (found >= 1).all()
        assert (found <= np.maximum(np.ceil(exact), 1)).all()
    else:
        assert found.max() == 1
