"""Pages of a study that is built, rebuilt, broken or removed while they are open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.api import Study
from engine.store import layout
from tests.builders.page_contents import cards, words
from tests.builders.synthetic_study import write_predictions, write_scores, write_study


def test_pages_follow_a_study_as_it_is_built(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", stage="spec")
    explore, explain = visit(study), visit(study, "explain", test="test-0")
    for app in (explore, explain):
        assert "Read and check the data" in words(app)
        assert f"dataloupe build {study.root}" in words(app)

    write_study(tmp_path / "t", stage="data")
    (tmp_path / "t" / "data").rename(study.root / "data")
    explore.run()
    assert len(cards(explore)) == 24
    assert "predicted" not in cards(explore)[0]["hint"]
    assert "Predictions appear" in words(explore)
    assert [box.key for box in explore.selectbox] == ["label"]
    assert not explore.slider
    explain.run()
    assert "True label" in words(explain)
    assert "Predicted" not in words(explain)
    assert "0 of 5" in words(explain)

    study = Study.open(study.root)
    write_predictions(study, "cnn", 0.2, np.random.default_rng(0))
    explore.run()
    assert "predicted" in cards(explore)[0]["hint"]
    assert "Predictions appear" not in words(explore)
    explain.run()
    assert "Confidence" in words(explain)
    assert "as soon as they are scored" in words(explain)

    write_scores(study, "cnn", 20, np.random.default_rng(0))
    explain.run()
    assert len(cards(explain, 0)) == 12
    assert not explore.exception
    assert not explain.exception


def test_a_removed_study_gets_a_message(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    app = visit(study)
    study.root.rename(tmp_path / "elsewhere")
    app.run()
    assert not app.exception
    assert "cannot be shown" in words(app)
    assert "is not a folder" in words(app)


def test_a_link_to_an_example_that_a_rebuild_removed(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    explain = visit(study, "explain", test="test-20", only="19-20", selected="18-21")
    training = visit(study, "training", train="train-30", test="test-20")
    write_study(tmp_path / "t", n_train=10, n_test=9, seed=4)
    for name in ("data", "algorithms"):
        (study.root / name).rename(tmp_path / f"old-{name}")
        (tmp_path / "t" / name).rename(study.root / name)
    for app, message in ((explain, "no test picture"), (training, "no training picture")):
        app.run()
        assert not app.exception
        assert message in words(app)
        assert "made for other data" in words(app)
    assert "only takes rows 0 to 8" in words(explain)


def test_a_broken_file_gets_a_message(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    path = layout.top_test_file(study.root, "cnn", "trak")
    path.write_bytes(path.read_bytes()[:-8])
    app = visit(study, "explain", test="test-0")
    assert "cannot be shown" in words(app)
    assert "dataloupe doctor" in words(app)


def test_a_rebuilt_study_shows_its_new_data(visit: Any, tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    app = visit(study)
    write_study(tmp_path / "t", n_test=9, seed=4)
    for name in ("data", "algorithms"):
        (study.root / name).rename(tmp_path / f"old-{name}")
        (tmp_path / "t" / name).rename(study.root / name)
    app.run()
    assert len(cards(app)) == 9
    assert "made for other data" in words(app)
