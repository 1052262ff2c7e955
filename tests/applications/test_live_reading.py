"""Reading a picture that people send, of studies of any size."""

from __future__ import annotations

import io

import pytest

from engine.api import Study
from engine.applications.live import Query, read_example, reading
from engine.store.sharded_rows import ShardedRows
from engine.study.examples import read_arrays
from engine.study.thumbnails import read_thumbnail


def test_the_training_pictures_may_be_in_several_shards(
    small_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    read_thumbnail(small_study, "test", 0).save(file, "PNG")
    query = Query(small_study.root, "mlp", {"picture": file.getvalue()})
    whole = read_example(query)
    (arrays,) = read_arrays(small_study, "train")
    split = {name: ShardedRows([array[:50], array[50:]]) for name, array in arrays.items()}
    monkeypatch.setattr(reading, "read_stacked_arrays", lambda study, split_name: split)
    reading._background.cache_clear()
    sharded = read_example(query)
    assert (sharded.arrays["input"] == whole.arrays["input"]).all()
