"""Choose each method's hyper-parameters, by forgetting other examples than those asked about.

As many others, like them, are unlearnt from a few originals and compared with as many models
retrained without them, on them and on other retain examples. Neither is part of the audit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from engine import execution, store
from engine.softmax import margins
from engine.study import Study
from engine.unlearning.hyper import GRIDS, Hyper
from engine.unlearning.klom import ceiling, normal_divergence
from engine.unlearning.models import (
    Unlearning,
    asked_about,
    oracle_file,
    read_said,
    say,
    unlearn,
    unlearned_made_from,
)
from engine.unlearning.questions import labels_of, rows_of

MODELS = 12
"""Originals, and oracles of the validation set, that choose."""
CODE = 1
"""Raised whenever the same models would choose otherwise."""


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        hyper: What did best.
        score: Its mean divergence on the validation set plus that on other retain examples.
        tried: How many others were tried.
    """

    hyper: Hyper
    score: float
    tried: int


@dataclass(frozen=True)
class Trial:
    """A job: unlearn the validation set from `models` originals, and judge."""

    unlearning: Unlearning
    models: int


def search(
    study: Study,
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
    key = store.fingerprint(
        "unlearning search",
        CODE,
        unlearned_made_from(study, plain),
        models,
        list(map(asdict, grid)),
    )
    path = study.unlearning_search_file(template.algorithm, key)
    if not path.exists():
        scores: dict[Hyper, float] = {}

        def keep(trial: Trial, score: float) -> None:
            scores[trial.unlearning.hyper] = score
            if on_done is not None:
                on_done(len(scores), len(grid))

        jobs = [Trial(replace(template, hyper=hyper), models) for hyper in grid]
        if workers is None:
            workers = execution.default_workers(template.device)
        execution.run_jobs(judge, jobs, workers if len(jobs) > 1 else 0, keep)
        best = min(grid, key=lambda hyper: scores[hyper])
        trials = [{**asdict(hyper), "score": scores[hyper]} for hyper in grid]
        store.write_json(path, {"best": asdict(best), "trials": trials}, key)
    content = store.read_json(path, key)
    hyper = Hyper(**content["best"])
    score = min(trial["score"] for trial in content["trials"])
    return Found(hyper, score, len(content["trials"]))


def judge(trial: Trial) -> float:
    """Worker: how far models are from the oracles of the validation set: lower is better."""
    job = trial.unlearning
    study = Study.open(job.root)
    asked = asked_about(study, job.asked, job.removed)
    found = []
    for seed in range(trial.models):
        model, _ = unlearn(study, replace(job, seed=seed))
        said = say(study, model, asked, job.device, test=False)["train"]
        if not np.isfinite(said).all():
            return 2 * ceiling()
        found.append(said)
    files = [
        oracle_file(study, job.algorithm, job.asked, job.removed, number)
        for number in range(trial.models)
    ]
    oracles = read_said(files, asked)
    unlearned = replace(oracles, train=np.stack(found))
    total = 0.0
    for part in (np.array(job.removed, np.int64), rows_of(study, job.asked).checked):
        labels = labels_of(study, part)
        ours, theirs = (margins(said.of(part), labels) for said in (unlearned, oracles))
        total += float(normal_divergence(unlearned=ours, oracle=theirs).mean())
    return total
