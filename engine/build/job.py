"""The job that builds a study: `dataloupe build` without a terminal."""

from __future__ import annotations

from typing import Any

from engine.build.stages import stages_of
from engine.running.progress import Report
from engine.store.errors import SpecError
from engine.store.records import Progress
from engine.study.progress import stage_progress
from engine.study.reader import StudyReader
from engine.study.stage_titles import TITLES

_DEFAULTS: dict[str, Any] = {"device": "auto", "workers": None, "rebuild": None}


def check(study: StudyReader, parameters: dict[str, Any]) -> dict[str, Any]:
    """Check the parameters `device`, `workers` and `rebuild` of `engine.build.build`."""
    if unknown := sorted(parameters.keys() - _DEFAULTS.keys()):
        raise SpecError(f"A build takes {', '.join(_DEFAULTS)}, not {unknown[0]!r}.")
    found = _DEFAULTS | parameters
    if found["device"] not in ("auto", "cpu", "cuda"):
        raise SpecError(f"Unknown device {found['device']!r}; choose auto, cpu or cuda.")
    workers = found["workers"]
    if workers is not None and (type(workers) is not int or workers < 0):
        raise SpecError(f"workers must be 0 or more, or omitted, not {workers!r}.")
    stages = stages_of(study)
    if found["rebuild"] is not None and found["rebuild"] not in stages:
        raise SpecError(
            f"There is no stage {found['rebuild']!r} to rebuild; stages are {', '.join(stages)}."
        )
    return found


def run(study: StudyReader, parameters: dict[str, Any], report: Report) -> dict[str, Any]:
    """Build the study, and report the progress of all stages together."""
    from engine.build.build import build

    several = len(study.spec.algorithms) > 1
    steps = {(step.stage, step.algorithm): step for step in stage_progress(study)}

    def show(step: Progress) -> None:
        steps[step.stage, step.algorithm] = step
        done = sum(min(one.done, one.total) for one in steps.values())
        suffix = f" · {step.algorithm}" if several and step.algorithm else ""
        report(done, sum(one.total for one in steps.values()), TITLES[step.stage] + suffix)

    build(study, **parameters, on_progress=show)
    return {}
