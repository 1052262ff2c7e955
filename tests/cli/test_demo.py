"""The demo of a template whose models make the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import Study
from engine.cli import demo as module
from engine.cli.demo import demo
from engine.store import layout
from engine.study.trajectories import read_trajectory
from tests.builders import diffusion


def test_it_shows_what_the_models_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = diffusion.SPEC.format(source=diffusion.write_squares(tmp_path), task="")
    for old, new in (("masks = 15", "masks = 0"), ("epochs = 6", "epochs = 1")):
        text = text.replace(old, new)
    opened: list[str] = []

    def launch(root: Path, **_: Any) -> str:
        opened.append(root.name)
        return "http://127.0.0.1"

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "spec_from_template", lambda _: text)
    monkeypatch.setattr(module, "launch", launch)
    monkeypatch.setattr("time.sleep", interrupt)
    assert demo(tmp_path / "shown", "diffusion", "cpu", 0) == 0
    study = Study.open(tmp_path / "shown")
    assert opened == ["shown"]
    assert set(study.table("test")["origin"]) == {"made", "held out"}
    assert read_trajectory(study, 0) is not None
    assert study.explain(0).supporting
    trained = Study.open(tmp_path / "shown-trained")
    assert trained.checkpoints("unet") == 2
    assert not layout.trak_folder(trained.root, "unet").exists(), "nothing of it is attributed"
    # Again, it only serves.
    monkeypatch.setattr(module, "generate", None)
    assert demo(tmp_path / "shown", "diffusion", "cpu", 0) == 0
