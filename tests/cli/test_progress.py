"""Progress where there is no terminal: a line at the start, one a minute, one at the end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.cli.progress import BuildProgress, job_progress
from engine.store.records import Progress
from tests.builders.synthetic_study import write_study


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("engine.cli.progress.time", SimpleNamespace(monotonic=made.monotonic))
    return made


def test_a_build_prints_a_line_when_a_stage_starts_and_ends_and_one_a_minute(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path / "study", stage="spec", algorithms=("cnn", "mlp"))
    with BuildProgress(study) as progress:
        progress.update(Progress("data", None, 0, 1))
        clock.now += 4
        progress.update(Progress("data", None, 1, 1))
        progress.update(Progress("checkpoints", "cnn", 2, 20))
        for done in range(3, 20):
            clock.now += 10
            progress.update(Progress("checkpoints", "cnn", done, 20))
        assert "Train checkpoints · cnn: finished" not in capsys.readouterr().out
        clock.now += 3600
        progress.update(Progress("checkpoints", "cnn", 20, 20))
        progress.update(Progress("checkpoints", "cnn", 20, 20))
        progress.update(Progress("predictions", "mlp", 1, 1))
    assert capsys.readouterr().out.splitlines() == [
        "Train checkpoints · cnn: finished after 62 min 50 s.",
        "Predict · mlp: finished.",
    ]


def test_the_lines_of_a_build(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path / "study", stage="spec")
    with BuildProgress(study) as progress:
        progress.update(Progress("data", None, 0, 1))
        clock.now += 4
        progress.update(Progress("data", None, 1, 1))
        for done in range(2, 16):
            progress.update(Progress("checkpoints", "cnn", done, 2000))
            clock.now += 10
    assert capsys.readouterr().out.splitlines() == [
        "Read and check the data: started.",
        "Read and check the data: finished after 4 s.",
        "Train checkpoints: started, 2 of 2,000 done before.",
        "Train checkpoints: 8 of 2,000 after 1 min 0 s.",
        "Train checkpoints: 14 of 2,000 after 2 min 0 s.",
    ]


def test_a_stage_that_starts_again_says_so(
    clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path / "study", stage="spec")
    with BuildProgress(study) as progress:
        for done in (0, 1, 0, 1):
            progress.update(Progress("search", "cnn", done, 1))
    words = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()]
    assert words == ["started.", "finished after 0 s."] * 2


def test_a_job_prints_lines_as_rarely(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with job_progress("Retrain") as report:
        for done in range(13):
            report(done, 13, "seed 3" if done > 6 else "")
            clock.now += 10
    assert capsys.readouterr().out.splitlines() == [
        "Retrain: started.",
        "Retrain: 6 of 13 after 1 min 0 s.",
        "Retrain: seed 3, 12 of 13 after 2 min 0 s.",
        "Retrain: finished after 2 min 10 s.",
    ]


def test_a_job_that_fails_is_not_finished(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="on purpose"), job_progress("Retrain"):
        raise ValueError("on purpose")
    assert capsys.readouterr().out == "Retrain: started.\n"
