"""Pictures larger than their thumbnails are shown at the size that the models read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from dashboard.login import picture_key
from dashboard.routes import routes
from engine import Study, store
from engine.store import layout
from engine.study.examples import read_arrays, size_of_pictures
from tests.builders.copies import copy_of
from tests.builders.page_contents import component


@pytest.fixture
def reduced(small_study: Study, tmp_path: Path) -> Study:
    """The small study as if its thumbnails were half as large as its pictures."""
    study = copy_of(small_study, tmp_path / "study")
    path = layout.dataset_file(study.root)
    content = store.read_json(path)
    store.write_json(path, content | {"cell": 14}, store.json_fingerprint(path))
    return Study.open(study.root)


def picture(study: Study, split: str, row: int) -> Any:
    client = TestClient(Starlette(routes=routes(study.root)))
    key = picture_key(study.dataset.fingerprint)
    return client.get(f"/dataloupe/pictures/{key}/{split}/{row}.png")


def test_the_picture_is_what_the_models_read(reduced: Study) -> None:
    assert size_of_pictures(reduced) == (28, 28)
    for split, row in (("train", 17), ("test", 3)):
        shown = Image.open(io.BytesIO(picture(reduced, split, row).content))
        pixels = read_arrays(reduced, split)[0]["input"][row]  # type: ignore[arg-type]
        assert np.array_equal(np.asarray(shown), pixels[0])
    assert picture(reduced, "train", 300).status_code == 404
    assert picture(reduced, "neither", 0).status_code == 404


def test_cards_say_where_it_is(visit: Any, reduced: Study) -> None:
    natural = component(visit(reduced, "explain", test="test-1"), "groups")["natural"]
    key = picture_key(reduced.dataset.fingerprint)
    assert natural["url"] == f"/dataloupe/pictures/{key}/train/{{}}.png"
    assert (natural["width"], natural["height"]) == (28, 28)


def test_a_small_picture_is_its_own_thumbnail(visit: Any, small_study: Study) -> None:
    assert size_of_pictures(small_study) is None
    assert component(visit(small_study, "explain", test="test-1"), "groups")["natural"] is None
    assert picture(small_study, "train", 0).status_code == 404
