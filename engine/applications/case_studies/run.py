"""Case studies: end-to-end comparisons of two learning algorithms with a known difference.

    study = open_case("shortcut", Path("case-shortcut"))
    study.build()
    run(study, "shortcut").planted

Each is a shipped spec of two algorithms on the embedded pictures (`assets/specs/case-NAME.toml`)
and a page of docs. The results are kept in the study, so the page Compare shows them too.
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
from engine.study.trust import trust_study

PICTURES = 300
"""Number of test pictures that transformations are tried on."""


@dataclass(frozen=True)
class CaseStudy:
    """The hypothesis of a case study, and how to test it.

    Attributes:
        title: Shown to people, one line.
        options: Options of transformations that differ from the default.
        planted: The column that marks examples with the planted feature; None: nothing is planted.
    """

    title: str
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    planted: str | None = None


CASES: dict[str, CaseStudy] = {
    "augmentation": CaseStudy(
        "What does a model learn differently when its training pictures are flipped and shifted?"
    ),
    "shortcut": CaseStudy(
        "Half of the pullovers have a patch that only one of the two algorithms can see. "
        "Does the comparison find it?",
        {"patch": {"kind": "plain"}},
        CARRIES,
    ),
    "learning-rate": CaseStudy(
        "What does a model learn differently when its learning rate is twenty times smaller?"
    ),
}


@dataclass(frozen=True)
class Outcome:
    """The results of a case study.

    Attributes:
        accuracy: Test accuracy of both algorithms, by name.
        comparison: See `engine.applications.modeldiff.comparison.read_comparison`.
        tried: Transformations as JSON, largest difference in effect first.
        planted: For each direction of B∖A, the share of examples with the planted feature among
            the training examples with the largest weights; empty if nothing was planted.
    """

    accuracy: dict[str, float]
    comparison: dict[str, Any]
    tried: list[dict[str, Any]]
    planted: list[float]


def open_case(name: str, root: Path) -> StudyReader:
    """The study of a case, perhaps not built yet; created in `root` if there is none.

    Raises:
        SpecError: There is no such case study, or the folder holds a different study.
    """
    if name not in CASES:
        raise SpecError(f"There is no case study {name!r}; there are {', '.join(CASES)}.")
    spec = spec_from_template(f"case-{name}")
    if not (root / "study.toml").exists():
        study = create_study(root, spec)
        trust_study(study)  # it names functions of this package
        return study
    study = StudyReader.open(root)
    if study.spec.name != tomllib.loads(spec)["name"]:
        raise SpecError(
            f"{root} holds a different study, {study.spec.name!r}. Choose a different folder."
        )
    return study


def run(
    study: StudyReader,
    name: str,
    device: str = "auto",
    workers: int | None = None,
    report: Report | None = None,
) -> Outcome:
    """Compare the two algorithms of a built case, and try all transformations.

    Args:
        report: Called with the progress.
    """
    case, report = CASES[name], report or (lambda done, total, what: None)
    a, b = list(study.spec.algorithms)
    found = run_job(study, {"a": a, "b": b, "device": device, "workers": workers}, report)
    comparison = read_comparison(study, found["comparison"])
    request = {
        "comparison": comparison["id"],
        "options": {key: dict(options) for key, options in case.options.items()},
        "rows": _rows(study, case),
    }
    tested = run_hypothesis(study, request, report)["hypothesis"]
    kept = store.read_json(layout.hypothesis_file(study.root, comparison["id"], tested))
    return Outcome(
        {one: float(read_predictions(study, "test", one)["correct"].mean()) for one in (a, b)},
        comparison,
        kept["tested"],
        _planted(study, case, comparison),
    )


def _rows(study: StudyReader, case: CaseStudy) -> list[int]:
    """The first test pictures without the planted feature."""
    rows = np.arange(study.dataset.n_test)
    if case.planted:
        rows = rows[~study.table("test")[case.planted].to_numpy(bool)]
    return [int(row) for row in rows[:PICTURES]]


def _planted(study: StudyReader, case: CaseStudy, comparison: dict[str, Any]) -> list[float]:
    if case.planted is None:
        return []
    carries = study.table("train")[case.planted].to_numpy(bool)
    return [float(carries[one["positive"]].mean()) for one in comparison["directions"]["b"]]
