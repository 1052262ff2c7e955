"""A source that changes during the data stage: changed rows are read again and never mixed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import Study
from engine.build.build import build_data
from engine.build.stages import data
from engine.data.raw import raw_fingerprints
from engine.data.sources import load_source
from engine.store import layout
from engine.store.errors import DataError
from engine.store.layout import ROWS_PER_SHARD
from engine.store.spec import DataSpec
from tests.build.test_build import contents
from tests.builders.sentences import SPEC, sentences

ROWS = ROWS_PER_SHARD + 500


def write_source(folder: Path, changed: int | None = None) -> Study:
    """Write a study of two shards of sentences, with one sentence changed if requested."""
    (folder / "sentences").mkdir(parents=True, exist_ok=True)
    train = sentences(ROWS, 0)
    if changed is not None:
        train.loc[changed, "text"] = "the soup loved the cook"  # no new word
    train.to_csv(folder / "sentences" / "train.csv", index=False)
    sentences(40, 1).to_csv(folder / "sentences" / "test.csv", index=False)
    exists = (folder / "study.toml").exists()
    return Study.open(folder) if exists else Study.create(folder, SPEC)


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose data stage stopped after the first shard."""
    real, calls = data._write_shard, []

    def once(*args: Any) -> Path:
        if calls:
            raise RuntimeError("no power")
        calls.append(args)
        return real(*args)

    study = write_source(tmp_path / "study")
    with monkeypatch.context() as patched:
        patched.setattr(data, "_write_shard", once)
        with pytest.raises(RuntimeError, match="no power"):
            build_data(study)
    assert layout.arrays_file(study.root, "train", 0).exists()
    assert not study.has_data
    return study.root


@pytest.mark.parametrize(("changed", "kept"), [(None, True), (10, False), (ROWS - 1, True)])
def test_only_changed_shards_are_read_again(
    interrupted: Path, tmp_path: Path, changed: int | None, kept: bool
) -> None:
    first = layout.arrays_file(Study.open(interrupted).root, "train", 0)
    before = first.stat().st_mtime_ns
    build_data(write_source(interrupted, changed))
    whole = write_source(tmp_path / "whole", changed)
    build_data(whole)
    assert contents(interrupted) == contents(whole.root)
    assert (first.stat().st_mtime_ns == before) == kept
    assert not layout.data_begun_file(whole.root).exists()


def test_a_lost_shard_is_not_read_from_a_changed_source(tmp_path: Path) -> None:
    study = write_source(tmp_path / "study")
    build_data(study)
    before = contents(study.root)
    layout.arrays_file(study.root, "train", 1).unlink()
    with pytest.raises(DataError, match=r"has changed since .* --rebuild data"):
        build_data(write_source(study.root, changed=ROWS - 1))
    assert not layout.arrays_file(study.root, "train", 1).exists()
    build_data(write_source(study.root))
    assert contents(study.root) == before


def test_a_changed_picture_file_changes_the_raw_fingerprint(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for number in range(4):
            path = tmp_path / "pictures" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(path)

    def found() -> list[str]:
        source = load_source(DataSpec(source="pictures"), tmp_path)
        return raw_fingerprints(source.train, 4096, source.classes, {})

    before = found()
    assert found() == before
    picture = tmp_path / "pictures" / "train" / "a" / "0.png"
    os.utime(picture, ns=(0, 1))
    assert found() != before
