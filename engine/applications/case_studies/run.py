"""Case studies: two learning algorithms whose difference is known, compared from start to end.

    study = open_case("shortcut", Path("case-shortcut"))
    study.build()
    run(study, "shortcut").planted

Each is a shipped spec of two algorithms on the embedded pictures (`assets/specs/case-NAME.toml`)
and a page of docs. What is found is kept in the study, so the page Compare shows it too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine import store
from engine.applications.case_studies.shortcut import CARRIES
from engine.applications.modeldiff.comparison import read_comparison
from engine.applications.modeldiff.job import run_hypothesis, run_job
from engine.data.templates import spec_from_template
from engine.running.progress import Report
from engine.store import layout
from engine.store.errors import SpecError
from engine.study.creation import create_study
from engine.study.models import read_predictions
from engine.study.reader import StudyReader

PICTURES = 300
"""Test pictures that transformations are tried on."""


@dataclass(frozen=True)
class CaseStudy:
    """What is asked, beyond what the spec says.

    Attributes:
        question: For people, in one line.
        options: Of transformations, where not the default.
        planted: The column that says which examples carry what was planted; None: nothing was.
    """

    question: str
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    planted: str | None = None


CASES: dict[str, CaseStudy] = {
    "augmentation": CaseStudy(
        "What does a model learn otherwise when its training pictures are flipped and shifted?"
    ),
    "shortcut": CaseStudy(
        "Half of the pullovers carry a patch, which one algorithm sees and the other does not. "
        "Is it found?",
        {"patch": {"kind": "plain"}},
        CARRIES,
    ),
    "learning-rate": CaseStudy(
        "What does a model learn otherwise when its learning rate is twenty times smaller?"
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What a case study found.

    Attributes:
        accuracy: Of both algorithms on the test pictures, by name.
        comparison: As of `engine.applications.modeldiff.compare.read_comparison`.
        tried: Transformations as JSON, those first that act most differently.
        planted: Share of the examples that carry what was planted among the heaviest training
            examples of each direction of B beside A; empty where nothing was planted.
    """

    accuracy: dict[str, float]
    comparison: dict[str, Any]
    tried: list[dict[str, Any]]
    planted: list[float]


def open_case(name: str, root: Path) -> StudyReader:
    """The study of a case, perhaps not built; made in `root` where there is none.

    Raises:
        SpecError: There is no such case study, or another study in that folder.
    """
    if name not in CASES:
        raise SpecError(f"There is no case study {name!r}; there are {', '.join(CASES)}.")
    spec = spec_from_template(f"case-{name}")
    if not (root / "study.toml").exists():
        return create_study(root, spec)
    study = StudyReader.open(root)
    if study.spec.name != tomllib.loads(spec)["name"]:
        raise SpecError(f"{root} holds another study, {study.spec.name!r}; name another folder.")
    return study


def run(
    study: StudyReader,
    name: str,
    device: str = "auto",
    workers: int | None = None,
    report: Report | None = None,
) -> Outcome:
    """Compare the two algorithms of a case that is built, and try all transformations.

    Args:
        report: Told how far it is.
    """
    case, report = CASES[name], report or (lambda done, total, what: None)
    a, b = list(study.spec.algorithms)
    found = run_job(study, {"a": a, "b": b, "device": device, "workers": workers}, report)
    comparison = read_comparison(study, found["comparison"])
    asked = {
        "comparison": comparison["id"],
        "options": {key: dict(options) for key, options in case.options.items()},
        "rows": _rows(study, case),
    }
    tested = run_hypothesis(study, asked, report)["hypothesis"]
    kept = store.read_json(layout.hypothesis_file(study.root, comparison["id"], tested))
    return Outcome(
        {one: float(read_predictions(study, "test", one)["correct"].mean()) for one in (a, b)},
        comparison,
        kept["tested"],
        _planted(study, case, comparison),
    )


def _rows(study: StudyReader, case: CaseStudy) -> list[int]:
    """Test pictures that do not carry what was planted: the first of them."""
    rows = np.arange(study.dataset.n_test)
    if case.planted:
        rows = rows[~study.table("test")[case.planted].to_numpy(bool)]
    return [int(row) for row in rows[:PICTURES]]


def _planted(study: StudyReader, case: CaseStudy, comparison: dict[str, Any]) -> list[float]:
    if case.planted is None:
        return []
    carries = study.table("train")[case.planted].to_numpy(bool)
    return [float(carries[one["positive"]].mean()) for one in comparison["directions"]["b"]]
