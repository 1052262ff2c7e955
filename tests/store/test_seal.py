"""Checksums cover every byte: each bit that is flipped anywhere in a study is found."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine import Study, store
from engine.store import layout
from engine.store.errors import StoreError
from engine.study.doctor import examine, problem_of
from engine.study.reader import StudyReader, open_to_repair
from tests.builders.bit_flips import bit_flips
from tests.builders.copies import copy_of
from tests.builders.sentences import SPEC

WRITERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "shard.safetensors": (
        lambda path: store.write_tensors(path, {"x": np.arange(9)}, "made", {"a": [1]}),
        lambda path: store.read_tensors(path, verify=True),
    ),
    "table.parquet": (
        lambda path: store.write_table(path, pa.table({"id": ["a", "b"], "n": [1, 2]}), "made"),
        lambda path: store.read_table(path, verify=True),
    ),
    "text.json": (
        lambda path: store.write_json(path, {"n": 1e-05, "x": "ä", "e": []}, "made"),
        store.read_json,
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_bit_counts(tmp_path: Path, name: str) -> None:
    write, read = WRITERS[name]
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    read(path)
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        with pytest.raises(StoreError):
            read(path)
    for length in (*range(0, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError):
            read(path)
    path.write_bytes(whole + b" ")
    with pytest.raises(StoreError):
        read(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"dtype"', b'"dtypd"'),
        (b'"I64"', b'"I65"'),
        (b'"shape":[9]', b'"shape":{9}'),
        (b'"shape":[9]', b'"shape":"9"'),
        (b'"data_offsets":[0,72]', b'"data_offsets":[72,0]'),
        (b'"data_offsets":[0,72]', b'"data_offsets":[-8,64]'),
        (b'{\\"a\\": [1]}', b'{\\"a\\": [1)}'),
        (b'"__metadata__"', b'"__metadatb__"'),
    ],
)
def test_reading_a_damaged_header_is_one_line(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "shard.safetensors"
    WRITERS[path.name][0](path)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    for read in (store.read_tensors, store.read_metadata):
        with contextlib.suppress(StoreError):  # and no other error
            read(path)
    with pytest.raises(StoreError, match="is broken"):
        store.read_tensors(path, verify=True)


def test_doctor_finds_flips_in_every_kind_of_file(small_study: Study) -> None:
    found = bit_flips(small_study, 120, seed=7)
    assert found["missed"] == []
    assert (found["called_whole"], found["crashed"]) == (0, 0)
    assert found["kinds"] > 15


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00", '{"format": 4}'])
def test_a_broken_store_json_is_no_dead_end(own_study: Study, content: str) -> None:
    path = layout.format_file(own_study.root)
    path.write_text(content)
    with pytest.raises(StoreError, match=r"store\.json is broken.*doctor STUDY --repair"):
        StudyReader.open(own_study.root)
    (finding,) = examine(open_to_repair(own_study.root), repair=True).broken
    assert str(path) in finding
    assert examine(StudyReader.open(own_study.root)).broken == []


def test_a_study_of_an_older_format_is_named_as_such_not_as_broken(own_study: Study) -> None:
    body = {"format": 3}
    content = {"dataloupe.fingerprint": "", "dataloupe.checksum": store.fingerprint_of(body)}
    layout.format_file(own_study.root).write_text(json.dumps(content | body))
    for opened in (StudyReader.open, open_to_repair):
        with pytest.raises(StoreError, match="older Dataloupe"):
            opened(own_study.root)


def test_a_changed_spec_is_noted(own_study: Study) -> None:
    spec = layout.spec_file(own_study.root)
    spec.write_text(spec.read_text().replace("epochs = 4", "epochs = 5"))
    report = examine(Study.open(own_study.root))
    assert report.broken == []
    (note,) = report.notes
    assert "-epochs = 4; +epochs = 5" in note
    assert problem_of(own_study, spec) == note


def test_files_of_the_user_in_the_folder_are_left_alone(text_study: Study, tmp_path: Path) -> None:
    copy = copy_of(text_study, tmp_path / "copy")
    assert "sentences" in SPEC
    for name in ("sentences/more.parquet", "weights/mine.safetensors", "data/train/cat/1.webp",
                 "data/extra.parquet", "notes.json"):  # fmt: skip
        path = copy.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    assert examine(copy, repair=True).broken == []
    assert (copy.root / "sentences" / "more.parquet").read_bytes() == b"mine"
