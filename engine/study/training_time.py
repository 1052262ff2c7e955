"""How long it takes to train a model of an algorithm, from when its models were written."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from statistics import mean

from engine.store import layout
from engine.study.reader import StudyReader
from engine.study.run_banks import finished_runs

LEAST = 0.05
"""Seconds between two models: files that were copied follow each other faster."""
PAUSE = 5.0
"""A gap so many times as long as usual ones is a pause between two builds."""


def seconds_per_training(study: StudyReader, algorithm: str) -> float | None:
    """Seconds between two models trained with all the data, with as many workers as the build had.

    None if fewer than two models are here, they were not trained here, or the files were copied.
    """
    if algorithm in study.uploads or study.spec.algorithms[algorithm].weights:
        return None
    runs = [layout.run_file(study.root, algorithm, *run) for run in finished_runs(study, algorithm)]
    checkpoints = [
        layout.checkpoint_file(study.root, algorithm, checkpoint)
        for checkpoint in range(study.checkpoints(algorithm))
    ]
    found = _seconds_between(runs)
    if found is not None:
        return found / study.spec.subset_runs.alpha
    return _seconds_between(checkpoints)


def _seconds_between(files: list[Path]) -> float | None:
    """Mean of the times between files that follow each other, without pauses."""
    times = sorted(file.stat().st_mtime for file in files if file.exists())
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    if not gaps:
        return None
    usual = gaps[3 * (len(gaps) - 1) // 4]  # several workers may end at once, so not the median
    found = mean(gap for gap in gaps if gap <= PAUSE * usual)
    return found if found >= LEAST else None
