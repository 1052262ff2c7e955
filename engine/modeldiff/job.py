"""Comparing as a job: compute what an upload lacks, then compare.

An upload is an algorithm with its own weights, so the stages of a build make its outputs,
predictions, scores and ranking, in the same files as any algorithm's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.answers import Progress
from engine.build import writing
from engine.execution import default_workers, pick_device
from engine.modeldiff.compare import Report, compare, side
from engine.stages import checkpoints, predictions, search, trak
from engine.stages.run import Run
from engine.study import Study

_STAGES: dict[str, tuple[str, Callable[[Run, str], None]]] = {
    "checkpoints": ("Running the uploaded models", checkpoints.run),
    "predictions": ("Averaging their predictions", predictions.run),
    "trak": ("Attributing their predictions", trak.run),
    "search": ("Ranking training examples", search.run),
}


def run_job(study: Study, parameters: dict[str, Any], report: Report) -> dict[str, Any]:
    """Compare two algorithms; compute first what an uploaded one lacks.

    Args:
        parameters: `a` and `b`, names of algorithms or ids of uploads; optionally `method_a`,
            `method_b`, `directions` (how many each way), `device` and `workers`.
        report: Called with (done, total, what is being done).

    Returns:
        `comparison`, its id.

    Raises:
        DataloupeError: There is no such algorithm, or it has no scores.
    """
    a, b = study.algorithm(parameters["a"]), study.algorithm(parameters["b"])
    for algorithm in (a, b):
        if algorithm in study.uploads:
            compute(study, algorithm, report, parameters.get("device"), parameters.get("workers"))
    sides = side(study, a, parameters.get("method_a")), side(study, b, parameters.get("method_b"))
    return {"comparison": compare(study, *sides, parameters.get("directions") or 5, report)}


def compute(
    study: Study,
    upload: str,
    report: Report,
    device: str | None = None,
    workers: int | None = None,
) -> None:
    """Make what is missing of an upload's predictions and scores."""
    device = pick_device(device or "auto")
    workers = default_workers(device) if workers is None else workers
    with writing(study):
        for what, stage in _STAGES.values():

            def say(progress: Progress, what: str = what) -> None:
                report(progress.done, progress.total, what)

            stage(Run(study, device, workers, say), upload)
