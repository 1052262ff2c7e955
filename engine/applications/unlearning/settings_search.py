"""Choose each method's hyper-parameters, by forgetting other examples than those asked about.

As many others, like them, are unlearnt from a few originals and compared with as many models
retrained without them, on them and on other retain examples. Neither is part of the audit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from engine import store
from engine.applications.unlearning.klom import ceiling, normal_divergence
from engine.applications.unlearning.models import (
    Unlearning,
    asked_about,
    oracle_file,
    read_said,
    say,
    unlearn,
    unlearned_fingerprint,
)
from engine.applications.unlearning.requests import labels_of, rows_of
from engine.applications.unlearning.settings import GRIDS, Hyper
from engine.attribution.softmax import margins
from engine.running import processes
from engine.store import layout
from engine.study.reader import StudyReader

MODELS = 12
"""Originals, and oracles of the validation set, that choose."""
CODE = 2
"""Raised whenever the same models would choose otherwise."""


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        hyper: What `choose` took.
        score: Its mean divergence on the validation set plus that on other retain examples.
        tried: How many others were tried.
    """

    hyper: Hyper
    score: float
    tried: int


@dataclass(frozen=True)
class Divergences:
    """How far models are from oracles, by example: lower is better.

    Attributes:
        removed: Of what they unlearned, float64 `[k]`.
        checked: Of other retain examples, float64 `[l]`.
    """

    removed: np.ndarray
    checked: np.ndarray

    @property
    def score(self) -> float:
        """What is to be least: both means together."""
        return float(self.removed.mean() + self.checked.mean())

    def error(self, other: Divergences) -> float:
        """Standard error of the difference of two scores, over the examples."""
        parts = (self.removed - other.removed, self.checked - other.checked)
        return math.sqrt(sum(float(part.var()) / len(part) for part in parts))


@dataclass(frozen=True)
class Trial:
    """A job: unlearn the validation set from `models` originals, and judge."""

    unlearning: Unlearning
    models: int


def search(
    study: StudyReader,
    template: Unlearning,
    grid: Sequence[Hyper] | None = None,
    models: int = MODELS,
    workers: int | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> Found:
    """The hyper-parameters of a method that do best on the validation set. Kept once found.

    Args:
        template: Of the unlearning: `removed` is the validation set; its hyper counts for nothing.
        grid: What to try; None: `GRIDS`.
        models: Originals 0 to `models` − 1 and as many oracles of the validation set are there.
    """
    grid = GRIDS[template.method] if grid is None else grid
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
    return Found(Hyper(**kept["chosen"]), kept["score"], len(kept["trials"]))


def choose(trials: Sequence[tuple[Hyper, Divergences]]) -> Hyper:
    """The best; but predicted changes are taken as they are where that is no worse.

    Of few models a score is noisy. So of all that are worse than the best by no more than one
    standard error of the difference, those count whose scale is nearest to 1, and of these the one
    with the lowest score (the one-standard-error rule: Breiman et al. 1984, section 3.4.3).
    """
    _, best = min(trials, key=lambda trial: trial[1].score)
    near = [trial for trial in trials if trial[1].score - best.score <= trial[1].error(best)]
    return min(near, key=lambda trial: (abs(math.log(trial[0].scale)), trial[1].score))[0]


def judge(trial: Trial) -> Divergences:
    """Worker: how far models are from the oracles of the validation set."""
    job = trial.unlearning
    study = StudyReader.open(job.root)
    asked = asked_about(study, job.asked, job.removed)
    removed, checked = np.array(job.removed, np.int64), rows_of(study, job.asked).checked
    found = []
    for seed in range(trial.models):
        model, _ = unlearn(study, replace(job, seed=seed))
        said = say(study, model, asked, job.device, test=False)["train"]
        if not np.isfinite(said).all():
            far = (np.full(len(part), ceiling()) for part in (removed, checked))
            return Divergences(*far)
        found.append(said)
    files = [
        oracle_file(study, job.algorithm, job.asked, job.removed, number)
        for number in range(trial.models)
    ]
    oracles = read_said(files, asked)
    unlearned = replace(oracles, train=np.stack(found))
    divergences = []
    for part in (removed, checked):
        labels = labels_of(study, part)
        ours, theirs = (margins(said.of(part), labels) for said in (unlearned, oracles))
        divergences.append(normal_divergence(unlearned=ours, oracle=theirs))
    return Divergences(*divergences)
