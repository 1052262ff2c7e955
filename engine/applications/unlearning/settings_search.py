"""Choose each method's hyper-parameters by forgetting a validation set instead of the forget set.

A few originals unlearn the validation set. They are compared with the same number of models
retrained without it, on the validation set and on other retain examples. The audit uses neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from engine import store
from engine.applications.unlearning.klom import ceiling, normal_divergence
from engine.applications.unlearning.oracles import oracle_outputs, rows_for
from engine.applications.unlearning.outputs import margins_of, train_outputs
from engine.applications.unlearning.rows import matched_of, rows_of
from engine.applications.unlearning.settings import ERROR_GRIDS, GRIDS, TOKEN_GRIDS, Hyper
from engine.applications.unlearning.unlearned import (
    Unlearning,
    unlearn,
    unlearned_fingerprint,
)
from engine.running import processes
from engine.store import layout
from engine.study.reader import StudyReader

MODELS = 12
"""Number of originals, and of oracles of the validation set, used to choose settings."""
_GRIDS_OF = {"logits": GRIDS, "token_log_odds": TOKEN_GRIDS, "errors": ERROR_GRIDS}
"""By what is matched."""
CODE = 2
"""Increment when the same models would give a different choice."""


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes:
        hyper: The settings chosen by `choose`.
        score: Their mean divergence on the validation set plus that on other retain examples.
        tried: Number of settings tried.
    """

    hyper: Hyper
    score: float
    tried: int


@dataclass(frozen=True)
class Divergences:
    """How far models are from oracles, by example: lower is better.

    Attributes:
        removed: Divergence on the examples they unlearned, float64 `[k]`.
        tuning: Divergence on other retain examples, float64 `[l]`.
    """

    removed: np.ndarray
    tuning: np.ndarray

    @property
    def score(self) -> float:
        """The sum of both means, to be minimized."""
        return float(self.removed.mean() + self.tuning.mean())

    def error(self, other: Divergences) -> float:
        """Standard error of the difference of two scores, over the examples."""
        parts = (self.removed - other.removed, self.tuning - other.tuning)
        return math.sqrt(sum(float(part.var()) / len(part) for part in parts))


@dataclass(frozen=True)
class Trial:
    """A job: unlearn the validation set from `models` originals, and judge."""

    unlearning: Unlearning
    models: int


def grid_of(study: StudyReader, method: str) -> Sequence[Hyper]:
    """The hyper-parameters to try for a method; the first are used where none is chosen."""
    return _GRIDS_OF[matched_of(study).record][method]


def search(
    study: StudyReader,
    template: Unlearning,
    grid: Sequence[Hyper] | None = None,
    models: int = MODELS,
    workers: int | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> Found:
    """Find the hyper-parameters of a method that do best on the validation set, and keep them.

    Args:
        template: The unlearning job of the validation set. Its hyper-parameters are ignored.
        grid: Hyper-parameters to try; None: `grid_of`.
        models: Number of originals and of oracles of the validation set. They must be trained.
    """
    grid = grid_of(study, template.method) if grid is None else grid
    plain = replace(template, hyper=Hyper(), seed=0)
    key = store.fingerprint_of(
        "unlearning search",
        CODE,
        unlearned_fingerprint(study, plain),
        models,
        list(map(asdict, grid)),
    )
    path = layout.unlearning_search_file(study.root, template.algorithm, key)
    if not path.exists():
        found: dict[Hyper, Divergences] = {}

        def keep(trial: Trial, divergences: Divergences) -> None:
            found[trial.unlearning.hyper] = divergences
            if on_done is not None:
                on_done(len(found), len(grid))

        jobs = [Trial(replace(template, hyper=hyper), models) for hyper in grid]
        if workers is None:
            workers = processes.default_workers(template.device)
        processes.run_jobs(judge, jobs, workers if len(jobs) > 1 else 0, keep)
        chosen = choose([(hyper, found[hyper]) for hyper in grid])
        trials = [{**asdict(hyper), "score": found[hyper].score} for hyper in grid]
        score = found[chosen].score
        store.write_json(path, {"chosen": asdict(chosen), "score": score, "trials": trials}, key)
    kept = store.read_json(path, key)
    return Found(Hyper.from_dict(kept["chosen"]), kept["score"], len(kept["trials"]))


def choose(trials: Sequence[tuple[Hyper, Divergences]]) -> Hyper:
    """The best settings, with a scale near 1 unless that is clearly worse.

    With few models, scores are noisy. So take all settings within one standard error of the best,
    keep those with the scale nearest to 1, and choose the one with the lowest score (the
    one-standard-error rule: Breiman et al. 1984, section 3.4.3).
    """
    _, best = min(trials, key=lambda trial: trial[1].score)
    near = [trial for trial in trials if trial[1].score - best.score <= trial[1].error(best)]
    return min(near, key=lambda trial: (abs(math.log(trial[0].scale)), trial[1].score))[0]


def judge(trial: Trial) -> Divergences:
    """Worker: how far models are from the oracles of the validation set."""
    job = trial.unlearning
    study = StudyReader.open(job.root)
    rows = rows_for(study, job.forget, job.removed)
    removed, tuning = np.array(job.removed, np.int64), rows_of(study, job.forget).tuning
    found = []
    for seed in range(trial.models):
        model, _ = unlearn(study, replace(job, seed=seed))
        outputs = train_outputs(study, model, rows, job.device)
        if not np.isfinite(outputs).all():
            far = (np.full(len(part), ceiling()) for part in (removed, tuning))
            return Divergences(*far)
        found.append(outputs)
    oracles = oracle_outputs(study, job.algorithm, job.forget, job.removed, trial.models)
    mine = replace(oracles.train, matched=np.stack(found))
    unlearned = replace(oracles, train=mine)
    divergences = []
    for part in (removed, tuning):
        ours, theirs = (margins_of(study, one.of(part)) for one in (unlearned, oracles))
        divergences.append(normal_divergence(unlearned=ours, oracle=theirs))
    return Divergences(*divergences)
