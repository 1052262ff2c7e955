"""Attribute every test prediction to the training data: TRAK, checkpoint by checkpoint.

On a dual road a checkpoint's scores are one shard; the mean over checkpoints, weighted by the mean
out-to-loss gradient, is then written in shards of test rows. On the primal road a checkpoint's
training features are row shards and its solved test features one shard; scores are products of
the two, taken where they are needed and never stored.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import store
from engine.attribution.scores import combine
from engine.attribution.trak.solver import Road
from engine.build.run import Run
from engine.build.stages.checkpoints import (
    checkpoint_made_from,
    load_checkpoint,
    outputs_made_from,
    versions,
)
from engine.store import layout
from engine.store.layout import ROWS_PER_SHARD
from engine.study.examples import read_stacked_arrays, shard_count
from engine.study.models import checkpoint_seed
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader
from engine.study.run_banks import is_tuned
from engine.study.score_matrices import read_score_matrix
from engine.tasks import load_task

if TYPE_CHECKING:
    from torch import nn

    from engine.attribution.scores import Scores
    from engine.tasks import Batch

CODE = 2
"""Raised whenever the same checkpoints would get other scores."""


@dataclass(frozen=True)
class Job:
    """One checkpoint to attribute with."""

    root: Path
    algorithm: str
    checkpoint: int
    device: str
    memory_bytes: int


def run(run: Run, algorithm: str) -> None:
    """Make what is missing of an algorithm's scores."""
    study = run.study
    total = study.checkpoints(algorithm)
    memory = memory_per_worker(run)
    road = _road(run, algorithm, memory)
    jobs = []
    for checkpoint in range(total):
        path = result_file(study, algorithm, checkpoint, road)
        made_from = attribution_made_from(study, algorithm, checkpoint, road)
        there = store.is_there(path, made_from)
        if not (there and _features_are_whole(study, algorithm, checkpoint, road)):
            jobs.append(Job(study.root, algorithm, checkpoint, run.device, memory))
    run.finish("trak", algorithm, attribute_checkpoint, jobs, total)
    _combine(study, algorithm, road)


# --- which road --------------------------------------------------------------------------------


def _road(run: Run, algorithm: str, memory_bytes: int) -> Road:
    """The road in the store, or the one that fits best now, which is then kept."""
    study = run.study
    path = layout.road_file(study.root, algorithm)
    made_from = road_made_from(study, algorithm)
    if path.exists():
        store.read_json(path, made_from)
        return stored_road(study, algorithm)
    road = plan_road(study, algorithm, memory_bytes)
    road = replace(road, **tuned_settings(study, algorithm))
    store.write_json(path, asdict(road), made_from)
    return road


def tuned_settings(study: StudyReader, algorithm: str) -> dict[str, Any]:
    """Settings of the road that validation runs decided. An upload has no runs of its own, and is
    to be compared: it takes those of the study's first algorithm."""
    if algorithm in study.uploads:
        algorithm = resolve_algorithm(study)
    if not is_tuned(study, algorithm):
        return {}
    return dict(store.read_json(layout.tuning_file(study.root, algorithm))["settings"])


def plan_road(study: StudyReader, algorithm: str, memory_bytes: int) -> Road:
    """The road that fits best, with the settings of study.toml or the defaults."""
    from engine.attribution.trak.attribute import choose_road

    model = load_checkpoint(study, algorithm, 0, "cpu")
    batch = next(batches_of(study, "train", "cpu", 8)())
    n_train, n_test = study.dataset.n_train, study.dataset.n_test
    task, spec = load_task(study.dataset.task), study.spec.trak
    return choose_road(model, task.model_output, batch, n_train, n_test, spec, memory_bytes)


def stored_road(study: StudyReader, algorithm: str) -> Road:
    """The road that the study's scores took."""
    stored = store.read_json(layout.road_file(study.root, algorithm))
    return Road(**{field.name: stored[field.name] for field in fields(Road)})


def memory_per_worker(run: Run) -> int:
    """Bytes that one job may take. `auto` is half of the machine's memory, not of what is free
    just now, so that two builds of one spec on one machine take the same road."""
    gib = run.study.spec.trak.memory_gib
    if gib == "auto":
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    else:
        total = int(gib * 2**30)
    return total // max(1, run.workers)


def road_made_from(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of the choice of road, for the first checkpoint as for all. How much memory
    there was is no part of it: a study that moves to a smaller machine keeps its road."""
    spec = study.spec.trak.model_dump(exclude={"memory_gib", "batch_size"})
    first = checkpoint_made_from(study, algorithm, 0)
    return store.fingerprint("road", CODE, spec, first, tuned_settings(study, algorithm))


def attribution_made_from(study: StudyReader, algorithm: str, checkpoint: int, road: Road) -> str:
    """Fingerprint of one checkpoint's scores or factors."""
    outputs_are = outputs_made_from(study, algorithm, checkpoint)
    road_is = {**asdict(road), "reason": "", "soft_threshold": 0.0}
    return store.fingerprint("trak", CODE, outputs_are, road_is, checkpoint_seed(study, checkpoint))


def scores_made_from(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of the scores of all checkpoints together."""
    road = stored_road(study, algorithm)
    checkpoints = range(study.checkpoints(algorithm))
    return store.fingerprint(
        "scores",
        CODE,
        [attribution_made_from(study, algorithm, m, road) for m in checkpoints],
        [outputs_made_from(study, algorithm, m) for m in checkpoints],
        road.soft_threshold,
    )


# --- one checkpoint ----------------------------------------------------------------------------


def result_file(study: StudyReader, algorithm: str, checkpoint: int, road: Road) -> Path:
    """The shard that is written last for a checkpoint."""
    if road.kind == "primal":
        return layout.factors_file(study.root, algorithm, checkpoint)
    return layout.dual_file(study.root, algorithm, checkpoint)


def _features_are_whole(study: StudyReader, algorithm: str, checkpoint: int, road: Road) -> bool:
    if road.kind != "primal":
        return True
    shards = range(shard_count(study, "train"))
    return all(
        layout.features_file(study.root, algorithm, checkpoint, shard).exists() for shard in shards
    )


def batches_of(
    study: StudyReader,
    split: str,
    device: str,
    batch_size: int,
    start: int = 0,
    stop: int | None = None,
) -> Callable[[], Iterator[Batch]]:
    """Prepared batches of a split's rows, as often as they are asked for."""
    from engine.training.outputs import batches

    assert split in ("train", "test")
    task, encoding = load_task(study.dataset.task), study.dataset.encoding
    arrays = read_stacked_arrays(study, "train" if split == "train" else "test")
    return lambda: batches(task, arrays, encoding, batch_size, device, start, stop)


def attribute_checkpoint(job: Job) -> None:
    """Worker: the scores of one checkpoint (dual), or its features and factors (primal)."""
    study = StudyReader.open(job.root)
    road = stored_road(study, job.algorithm)
    model = load_checkpoint(study, job.algorithm, job.checkpoint, job.device)
    made_from = attribution_made_from(study, job.algorithm, job.checkpoint, road)
    made_by = {"device": job.device, **asdict(road), **versions()}
    attribute = _attribute_primal if road.kind == "primal" else _attribute_dual
    attribute(study, job, model, road, made_from, made_by)


def _attribute_dual(
    study: StudyReader,
    job: Job,
    model: nn.Module,
    road: Road,
    made_from: str,
    made_by: dict[str, Any],
) -> None:
    import torch

    from engine.attribution.trak.attribute import attribute_dual

    task, size = load_task(study.dataset.task), study.spec.trak.batch_size
    train, test = (batches_of(study, split, job.device, size) for split in ("train", "test"))
    seed = checkpoint_seed(study, job.checkpoint)
    q = torch.from_numpy(stored_out_to_loss(study, job.algorithm, job.checkpoint))
    scores = attribute_dual(model, task.model_output, train, test, road, seed, job.memory_bytes, q)
    path = layout.dual_file(study.root, job.algorithm, job.checkpoint)
    store.write_tensors(path, {"scores": scores.cpu().numpy()}, made_from, made_by)


def _attribute_primal(
    study: StudyReader,
    job: Job,
    model: nn.Module,
    road: Road,
    made_from: str,
    made_by: dict[str, Any],
) -> None:
    """Row shards of training features, then the factors, read back from the shards: so a build
    that was interrupted sums in the same order as one that was not."""
    import torch

    from engine.attribution.trak.attribute import gram, primal_projection, test_factors
    from engine.attribution.trak.kernel import first_examples
    from engine.attribution.trak.projection import features

    output, size = load_task(study.dataset.task).model_output, study.spec.trak.batch_size
    first = first_examples(batches_of(study, "train", job.device, size))
    projection = primal_projection(
        model, output, first, road, checkpoint_seed(study, job.checkpoint)
    )
    paths = []
    for shard in range(shard_count(study, "train")):
        path = layout.features_file(study.root, job.algorithm, job.checkpoint, shard)
        if not path.exists():
            start = shard * ROWS_PER_SHARD
            rows = batches_of(study, "train", job.device, size, start, start + ROWS_PER_SHARD)
            blocks = list(features(model, output, rows(), projection))
            tensors = {"features": torch.cat(blocks).cpu().numpy()}
            store.write_tensors(path, tensors, made_from, made_by)
        paths.append(path)
    stored = (
        torch.from_numpy(np.array(store.read_tensors(path, made_from)["features"]))
        for path in paths
    )
    tests = batches_of(study, "test", job.device, size)
    test_features = torch.cat(list(features(model, output, tests(), projection))).cpu()
    q = torch.from_numpy(stored_out_to_loss(study, job.algorithm, job.checkpoint))
    factors = test_factors(gram(stored, road, q), test_features, road.damping)
    path = layout.factors_file(study.root, job.algorithm, job.checkpoint)
    store.write_tensors(path, {"factors": factors.numpy()}, made_from, made_by)


def stored_out_to_loss(study: StudyReader, algorithm: str, checkpoint: int) -> np.ndarray:
    """Q of every training example at a checkpoint, `[n_train]`."""
    path = layout.outputs_file(study.root, algorithm, checkpoint, "train")
    return np.array(store.read_tensors(path)["out_to_loss"])


# --- all checkpoints ---------------------------------------------------------------------------


def _combine(study: StudyReader, algorithm: str, road: Road) -> None:
    """Write what all checkpoints have in common: Q̄, the soft threshold, and (dual) the scores."""
    made_from = scores_made_from(study, algorithm)
    path = layout.weighting_file(study.root, algorithm)
    scores_files = []
    if road.kind != "primal":
        scores_files = [
            layout.scores_file(study.root, algorithm, n) for n in range(shard_count(study, "test"))
        ]
    if path.exists():
        store.read_tensors(path, made_from)
        if all(file.exists() for file in scores_files):
            return
    checkpoints = range(study.checkpoints(algorithm))
    out_to_loss = mean_out_to_loss(study, algorithm, len(checkpoints), road)
    for shard, file in enumerate(scores_files):
        tests = slice(shard * ROWS_PER_SHARD, (shard + 1) * ROWS_PER_SHARD)
        total = np.zeros((), np.float32)
        for checkpoint in checkpoints:
            dual = store.read_tensors(layout.dual_file(study.root, algorithm, checkpoint))
            total = total + dual["scores"][tests]
        scores = combine(total, len(checkpoints), out_to_loss)
        store.write_tensors(file, {"scores": scores}, made_from)
    weighting = {"out_to_loss": out_to_loss}
    store.write_tensors(path, weighting, made_from)
    if road.soft_threshold > 0:
        deviations = score_deviations(read_score_matrix(study, algorithm))
        weighting["threshold"] = np.float32(road.soft_threshold) * deviations
        store.write_tensors(path, weighting, made_from)


def mean_out_to_loss(
    study: StudyReader, algorithm: str, checkpoints: int, road: Road
) -> np.ndarray:
    """Q^t of the mean over the first checkpoints: what scores are multiplied by, `[n_train]`."""
    import torch

    from engine.attribution.trak.attribute import temper

    mean = np.zeros(study.dataset.n_train, np.float32)
    for checkpoint in range(checkpoints):
        outputs = store.read_tensors(
            layout.outputs_file(study.root, algorithm, checkpoint, "train")
        )
        mean += outputs["out_to_loss"] / np.float32(checkpoints)
    tempered: np.ndarray = temper(torch.from_numpy(mean), road).numpy()
    return tempered


def score_deviations(scores: Scores) -> np.ndarray:
    """Standard deviation of each test example's scores, float32 `[n_test]`."""
    total, squares = np.zeros(scores.n_test), np.zeros(scores.n_test)
    for _, block in scores.blocks():
        total += block.sum(axis=1, dtype=np.float64)
        squares += np.square(block, dtype=np.float64).sum(axis=1)
    mean = total / scores.n_train
    variance = np.maximum(squares / scores.n_train - mean**2, 0)
    return np.sqrt(variance).astype(np.float32)
