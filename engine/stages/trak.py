"""Attribute every test prediction to the training data: TRAK, checkpoint by checkpoint.

On a dual road a checkpoint's scores are one shard; the mean over checkpoints, weighted by the mean
out-to-loss gradient, is then written in shards of test rows. On the primal road a checkpoint's
training features are row shards and its solved test features one shard; scores are products of
the two, taken where they are needed and never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.attribution.scores import combine
from engine.execution import run_jobs
from engine.stages.checkpoints import (
    checkpoint_made_from,
    load_checkpoint,
    outputs_made_from,
    untrained_model,
    versions,
)
from engine.stages.run import Run
from engine.study import ROWS_PER_SHARD, Progress, Study
from engine.tasks import load_task

if TYPE_CHECKING:
    from engine.attribution.trak import Road
    from engine.tasks import Batch

CODE = 1
"""Raised whenever the same checkpoints would get other scores."""


@dataclass(frozen=True)
class Job:
    """One checkpoint to attribute with."""

    root: Path
    algorithm: str
    checkpoint: int
    device: str


def run(run: Run, algorithm: str) -> None:
    """Make what is missing of an algorithm's scores."""
    study = run.study
    total = study.checkpoints(algorithm)
    road = _road(run, algorithm)
    jobs = []
    for checkpoint in range(total):
        path = result_file(study, algorithm, checkpoint, road)
        if path.exists():
            store.read_tensors(path, scores_made_from(study, algorithm, checkpoint, road))
        if not (path.exists() and _features_are_whole(study, algorithm, checkpoint, road)):
            jobs.append(Job(study.root, algorithm, checkpoint, run.device))
    finished = total - len(jobs)
    run.report(Progress("trak", algorithm, finished, total))

    def on_done(job: Job, result: None) -> None:
        nonlocal finished
        finished += 1
        run.report(Progress("trak", algorithm, finished, total))

    run_jobs(attribute_checkpoint, jobs, run.workers, on_done)
    _combine(study, algorithm, road)


# --- which road --------------------------------------------------------------------------------


def _road(run: Run, algorithm: str) -> Road:
    """The road in the store, or the one that fits best now, which is then kept."""
    from engine.attribution.trak import Road, choose_road

    study = run.study
    path = study.road_file(algorithm)
    made_from = road_made_from(study, algorithm)
    if path.exists():
        stored = store.read_json(path, made_from)
        return Road(**stored["road"])
    spec = study.spec.trak
    model = untrained_model(study, study.spec.algorithms[algorithm], seed=0).eval()
    road = choose_road(
        model,
        next(batches_of(study, "train", "cpu", 2)()),
        study.dataset.n_train,
        study.dataset.n_test,
        spec,
        memory_per_worker(run),
    )
    content = {"road": asdict(road), "soft_threshold": spec.soft_threshold}
    store.write_json(path, {**content, "checkpoints": study.checkpoints(algorithm)}, made_from)
    return road


def memory_per_worker(run: Run) -> int:
    """Bytes that one job may take. `auto` is half of the machine's memory, not of what is free
    just now, so that two builds of one spec on one machine take the same road."""
    gib = run.study.spec.trak.memory_gib
    if gib == "auto":
        import os

        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    else:
        total = int(gib * 2**30)
    return total // max(1, run.workers)


def road_made_from(study: Study, algorithm: str) -> str:
    """Fingerprint of the choice of road. How much memory there was is no part of it: a study that
    moves to a smaller machine keeps its road."""
    spec = study.spec.trak.model_dump(exclude={"memory_gib", "batch_size"})
    checkpoints = range(study.checkpoints(algorithm))
    return store.fingerprint(
        "road", CODE, spec, [checkpoint_made_from(study, algorithm, m) for m in checkpoints]
    )


def scores_made_from(study: Study, algorithm: str, checkpoint: int, road: Road) -> str:
    """Fingerprint of one checkpoint's scores or factors."""
    checkpoint_is = checkpoint_made_from(study, algorithm, checkpoint)
    road_is = {**asdict(road), "reason": ""}
    return store.fingerprint("trak", CODE, checkpoint_is, road_is, study.seed(checkpoint))


def combined_made_from(study: Study, algorithm: str, road: Road) -> str:
    """Fingerprint of the scores of all checkpoints together."""
    checkpoints = range(study.checkpoints(algorithm))
    return store.fingerprint(
        "scores",
        CODE,
        [scores_made_from(study, algorithm, m, road) for m in checkpoints],
        [outputs_made_from(study, algorithm, m) for m in checkpoints],
        study.spec.trak.soft_threshold,
    )


# --- one checkpoint ----------------------------------------------------------------------------


def result_file(study: Study, algorithm: str, checkpoint: int, road: Road) -> Path:
    """The shard that is written last for a checkpoint."""
    if road.kind == "primal":
        return study.factors_file(algorithm, checkpoint)
    return study.dual_file(algorithm, checkpoint)


def _features_are_whole(study: Study, algorithm: str, checkpoint: int, road: Road) -> bool:
    if road.kind != "primal":
        return True
    shards = range(study.shards("train"))
    return all(study.features_file(algorithm, checkpoint, shard).exists() for shard in shards)


def batches_of(
    study: Study, split: str, device: str, batch_size: int, start: int = 0, stop: int | None = None
) -> Callable[[], Iterator[Batch]]:
    """Prepared batches of a split's rows, as often as they are asked for."""
    from engine.training.outputs import batches

    assert split in ("train", "test")
    task, encoding = load_task(study.dataset.task), study.dataset.encoding
    arrays = study.stacked_arrays("train" if split == "train" else "test")
    return lambda: batches(task, arrays, encoding, batch_size, device, start, stop)


def attribute_checkpoint(job: Job) -> None:
    """Worker: the scores of one checkpoint (dual), or its features and factors (primal)."""
    from engine.attribution.trak import Road, attribute_dual

    study = Study.open(job.root)
    task = load_task(study.dataset.task)
    road = Road(**store.read_json(study.road_file(job.algorithm))["road"])
    model = load_checkpoint(study, job.algorithm, job.checkpoint, job.device)
    made_from = scores_made_from(study, job.algorithm, job.checkpoint, road)
    made_by = {"device": job.device, **asdict(road), **versions()}
    size = study.spec.trak.batch_size
    seed = study.seed(job.checkpoint)
    if road.kind == "primal":
        _attribute_primal(study, job, model, road, made_from, made_by)
        return
    train, test = (batches_of(study, split, job.device, size) for split in ("train", "test"))
    scores = attribute_dual(model, task.model_output, train, test, road, seed)
    path = study.dual_file(job.algorithm, job.checkpoint)
    store.write_tensors(path, {"scores": np.asarray(scores)}, made_from, made_by)
