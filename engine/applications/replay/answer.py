"""The exact answer for one prediction: the job that computes it, and what it found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine import store
from engine.applications.replay.smoothness import (
    TRAININGS,
    Smoothness,
    measured_smoothness,
    read_smoothness,
)
from engine.attribution.evaluation.quality import Measured
from engine.build.replaying import (
    Query,
    check_replayable,
    kept_queries,
    replay,
    replay_file,
    replay_fingerprint,
)
from engine.running.jobs.parameters import complete
from engine.running.progress import Report
from engine.store import layout
from engine.store.errors import DataloupeError, SpecError, UploadError
from engine.study.names import resolve_algorithm, resolve_rows
from engine.study.reader import StudyReader

KIND = "replay"
SEEDS, MOST_SEEDS = 5, 20
_TRAININGS_OF_A_MODEL = 3.0
"""The training that is walked back through, and about two for the walk."""


@dataclass(frozen=True)
class Answer:
    """Exact scores of one prediction, by several models.

    Attributes:
        seeds: Numbers of the models.
        scores: `[seeds, n_train]`, in the unit of the output; positive supports.
        values: The explained output of each model, `[seeds]`.
        smoothness: Of the algorithm's training; None if it was not measured.
    """

    seeds: tuple[int, ...]
    scores: np.ndarray
    values: np.ndarray
    smoothness: Smoothness | None

    @property
    def mean(self) -> np.ndarray:
        """Mean over the models, `[n_train]`."""
        found: np.ndarray = self.scores.mean(axis=0)
        return found

    def strongest(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the most supporting and of the most opposing examples."""
        mean = self.mean
        order = np.argsort(-mean, kind="stable")
        support, oppose = order[:k], order[::-1][:k]
        return support[mean[support] > 0], oppose[mean[oppose] < 0]

    def agreeing(self, rows: np.ndarray) -> np.ndarray:
        """In how many models each of these examples has the sign of its mean."""
        return agreeing(self.scores[:, rows])

    def changes(self, rows: np.ndarray) -> np.ndarray:
        """Predicted change of each model's output without these examples, `[seeds]`."""
        each: np.ndarray = -self.scores[:, rows].sum(axis=1, dtype=np.float64)
        return each

    def without(self, rows: np.ndarray) -> Measured:
        """Predicted change of the output without these examples: its mean, and the least and the
        most of the models."""
        changes = self.changes(rows)
        return Measured(float(changes.mean()), float(changes.min()), float(changes.max()))


def agreeing(values: np.ndarray) -> np.ndarray:
    """In how many models a value `[models, ...]` has the sign of its mean over them: `[...]`."""
    mean = values.mean(axis=0, dtype=np.float64)
    count: np.ndarray = (np.sign(values) == np.sign(mean)).sum(axis=0)
    return count


def read_answer(study: StudyReader, row: int, algorithm: str) -> Answer | None:
    """What is kept of one prediction, with this data and recipe; None if there is nothing."""
    return _read(study, row, algorithm, replay_fingerprint(study, algorithm))


def _read(study: StudyReader, row: int, algorithm: str, fingerprint: str) -> Answer | None:
    query = Query((row,), (1.0,))
    seeds, found = [], []
    for seed in range(MOST_SEEDS):
        path = replay_file(study.root, algorithm, fingerprint, seed, query)
        if path.exists():
            seeds.append(seed)
            found.append(store.read_tensors(path, fingerprint))
    if not found:
        return None
    return Answer(
        tuple(seeds),
        np.stack([one["scores"] for one in found]).astype(np.float64),
        np.concatenate([one["value"] for one in found]),
        read_smoothness(study, algorithm),
    )


def kept_answer(study: StudyReader, row: int, algorithm: str) -> Answer | None:
    """As `read_answer`; None, too, for models that cannot be trained again."""
    fingerprint = _fingerprint_of_kept(study, algorithm)
    return None if fingerprint is None else _read(study, row, algorithm, fingerprint)


def kept_answers(study: StudyReader, algorithm: str) -> Iterator[tuple[int, Answer]]:
    """The test rows with exact scores of their own, ascending, and their answers."""
    fingerprint = _fingerprint_of_kept(study, algorithm)
    if fingerprint is None:
        return
    for query in kept_queries(study, algorithm, fingerprint):
        row = query.tests[0]
        if query != Query((row,), (1.0,)):
            continue
        answer = _read(study, row, algorithm, fingerprint)
        if answer is not None:  # else kept of other models only
            yield row, answer


def _fingerprint_of_kept(study: StudyReader, algorithm: str) -> str | None:
    """The fingerprint, which reads files that the recipe names; None where nothing can be kept."""
    if not layout.has_replays(study.root, algorithm):
        return None
    try:
        check_replayable(study, algorithm)
        return replay_fingerprint(study, algorithm)
    except (SpecError, UploadError):  # what was kept belongs to another recipe
        return None


def trainings(study: StudyReader, algorithm: str, seeds: int = SEEDS) -> float:
    """About how many trainings it takes to answer for one prediction."""
    known = read_smoothness(study, algorithm) is not None
    return seeds * _TRAININGS_OF_A_MODEL + (0 if known else TRAININGS)


def check_job(study: StudyReader, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the job, with defaults: `tests` (rows or ids), `algorithm`, `seeds` (a number
    of models), `device`, `workers`."""
    defaults: dict[str, Any] = {"tests": [], "algorithm": None, "seeds": SEEDS}
    request = complete(defaults | {"device": "auto", "workers": None}, parameters)
    algorithm = resolve_algorithm(study, request["algorithm"])
    check_replayable(study, algorithm)
    rows = [int(row) for row in resolve_rows(study, "test", request["tests"])]
    seeds = request["seeds"]
    if not rows:
        raise DataloupeError("Name at least one test example to compute exactly.")
    if not isinstance(seeds, int) or not 1 <= seeds <= MOST_SEEDS:
        raise DataloupeError(f"seeds is {seeds!r}; it must be 1 to {MOST_SEEDS}.")
    return request | {"tests": rows, "algorithm": algorithm}


def run_job(study: StudyReader, parameters: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Run as a job of the queue: compute the scores and keep them. What is kept is not repeated."""
    algorithm, seeds = parameters["algorithm"], parameters["seeds"]
    where = {name: parameters[name] for name in ("device", "workers")}
    total = seeds + 1
    replay(
        study,
        parameters["tests"],
        algorithm,
        range(seeds),
        **where,
        on_done=lambda done, _: report(done, total, "models"),
    )
    found = measured_smoothness(study, algorithm, **where)
    report(total, total, "models")
    return {"tests": parameters["tests"], "smoothness": found.value}
