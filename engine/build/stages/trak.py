"""Attribute every test prediction to the training data with TRAK, in `trak/`.

With a dual solver, the scores of each checkpoint are one shard; their mean over checkpoints, times
the mean out-to-loss gradient, is then written in shards of test rows. With the primal solver, each
checkpoint gets row shards of training features and one shard of solved test features; scores are
products of the two, computed on demand and never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import store
from engine.attribution.scores.factors import combine
from engine.attribution.scores.packed_rows import pack
from engine.attribution.trak.solver import Solver
from engine.build.batches import batches_of, mean_out_to_loss, stored_out_to_loss
from engine.build.models import load_checkpoint, versions
from engine.build.run import Run
from engine.build.solver import limit_workers, memory_per_worker, plan_solver, tuned_settings
from engine.build.stages.checkpoints import checkpoint_fingerprint, outputs_fingerprint
from engine.build.tasks import attributed_task, samples_of
from engine.store import layout
from engine.store.layout import ROWS_PER_SHARD
from engine.study.examples import shard_count
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_curvature, stored_solver, unthresholded_scores

if TYPE_CHECKING:
    from torch import nn

    from engine.attribution.scores.matrix import Scores
    from engine.attribution.trak.plan import Output

CODE = 4
"""Increment when the same checkpoints would give other scores."""
PRIMAL_CODE = 4
"""The same, for features of the primal."""


@dataclass(frozen=True)
class Job:
    """Attribute with one checkpoint."""

    root: Path
    algorithm: str
    checkpoint: int
    device: str
    memory_bytes: int


def run(run: Run, algorithm: str) -> None:
    """Compute an algorithm's missing scores or factors."""
    study = run.study
    total = study.checkpoints(algorithm)
    memory = memory_per_worker(run)
    solver = _solver(run, algorithm, memory)
    jobs = []
    for checkpoint in range(total):
        path = result_file(study, algorithm, checkpoint, solver)
        fingerprint = attribution_fingerprint(study, algorithm, checkpoint, solver)
        exists = store.is_there(path, fingerprint)
        if not (exists and _has_all_features(study, algorithm, checkpoint, solver)):
            jobs.append(Job(study.root, algorithm, checkpoint, run.device, memory))
    limit_workers(run, solver).run_remaining("trak", algorithm, attribute_checkpoint, jobs, total)
    _combine(study, algorithm, solver)


# --- the solver ----------------------------------------------------------------------------------


def _solver(run: Run, algorithm: str, memory_bytes: int) -> Solver:
    """The stored solver, or a newly chosen one, which is then stored."""
    study = run.study
    path = layout.solver_file(study.root, algorithm)
    fingerprint = solver_fingerprint(study, algorithm)
    if path.exists():
        store.read_json(path, fingerprint)
        return stored_solver(study, algorithm)
    solver = plan_solver(study, algorithm, memory_bytes)
    solver = replace(solver, **tuned_settings(study, algorithm))
    store.write_json(path, asdict(solver), fingerprint)
    return solver


def solver_fingerprint(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of the choice of solver, which is made on the first checkpoint.

    It does not include the amount of memory: a study that moves to a smaller machine keeps its
    solver.
    """
    first = checkpoint_fingerprint(study, algorithm, 0)
    settings = study.spec.trak.chosen, first, tuned_settings(study, algorithm)
    return store.fingerprint_of("solver", CODE, *settings)


def attribution_fingerprint(
    study: StudyReader, algorithm: str, checkpoint: int, solver: Solver
) -> str:
    """Fingerprint of one checkpoint's scores or factors."""
    outputs = outputs_fingerprint(study, algorithm, checkpoint)
    settings = {**asdict(solver), "reason": "", "soft_threshold": 0.0}
    if solver.storage == "float32":
        del settings["storage"]  # results of before there was a choice keep their fingerprints
    if solver.precision == "float32":
        del settings["precision"]  # the same
    if not solver.samples:
        del settings["samples"]  # the same
    code = PRIMAL_CODE if solver.kind == "primal" else CODE
    return store.fingerprint_of("trak", code, outputs, settings, checkpoint_seed(study, checkpoint))


def scores_fingerprint(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of the scores averaged over all checkpoints."""
    solver = stored_solver(study, algorithm)
    checkpoints = range(study.checkpoints(algorithm))
    return store.fingerprint_of(
        "scores",
        CODE,
        [attribution_fingerprint(study, algorithm, m, solver) for m in checkpoints],
        [outputs_fingerprint(study, algorithm, m) for m in checkpoints],
        solver.soft_threshold,
    )


# --- one checkpoint ----------------------------------------------------------------------------


def result_file(study: StudyReader, algorithm: str, checkpoint: int, solver: Solver) -> Path:
    """The last file written for a checkpoint."""
    if solver.kind == "primal":
        return layout.factors_file(study.root, algorithm, checkpoint)
    return layout.dual_file(study.root, algorithm, checkpoint)


def _has_all_features(study: StudyReader, algorithm: str, checkpoint: int, solver: Solver) -> bool:
    if solver.kind != "primal":
        return True
    shards = range(shard_count(study, "train"))
    files = [layout.features_file(study.root, algorithm, checkpoint, shard) for shard in shards]
    if solver.samples:
        files += [
            layout.features_file(study.root, algorithm, checkpoint, s, "curvature") for s in shards
        ]
    return all(file.exists() for file in files)


def attribute_checkpoint(job: Job) -> None:
    """Worker: compute one checkpoint's scores (dual), or its features and factors (primal)."""
    study = StudyReader.open(job.root)
    solver = stored_solver(study, job.algorithm)
    model = load_checkpoint(study, job.algorithm, job.checkpoint, job.device)
    fingerprint = attribution_fingerprint(study, job.algorithm, job.checkpoint, solver)
    metadata = {"device": job.device, **asdict(solver), **versions()}
    attribute = _attribute_primal if solver.kind == "primal" else _attribute_dual
    attribute(study, job, model, solver, fingerprint, metadata)


def _attribute_dual(
    study: StudyReader,
    job: Job,
    model: nn.Module,
    solver: Solver,
    fingerprint: str,
    metadata: dict[str, Any],
) -> None:
    import torch

    from engine.attribution.trak.dual import attribute_dual

    task, size = attributed_task(study, job.algorithm, job.checkpoint), study.spec.trak.batch_size
    train, test = (batches_of(study, split, job.device, size) for split in ("train", "test"))
    seed = checkpoint_seed(study, job.checkpoint)
    q = torch.from_numpy(stored_out_to_loss(study, job.algorithm, job.checkpoint))
    outputs = task.trained_output, task.model_output
    scores = attribute_dual(
        model, outputs[0], train, test, solver, seed, job.memory_bytes, q, of_test=outputs[1]
    )
    path = layout.dual_file(study.root, job.algorithm, job.checkpoint)
    store.write_tensors(path, {"scores": scores.cpu().numpy()}, fingerprint, metadata)


def _attribute_primal(
    study: StudyReader,
    job: Job,
    model: nn.Module,
    solver: Solver,
    fingerprint: str,
    metadata: dict[str, Any],
) -> None:
    """Write row shards of training features and of sampled curvature, then the factors.

    The factors are computed from the stored shards, so that an interrupted build sums in the same
    order as an uninterrupted one.
    """
    import torch

    from engine.attribution.trak.kernel import first_examples
    from engine.attribution.trak.primal import (
        blocks_of,
        features_of,
        gram,
        primal_projection,
        test_factors,
    )

    task = attributed_task(study, job.algorithm, job.checkpoint)
    output, of_test = task.trained_output, task.model_output
    size = study.spec.trak.batch_size
    first = first_examples(batches_of(study, "train", job.device, size))
    projection = primal_projection(
        model, output, first, solver, checkpoint_seed(study, job.checkpoint)
    )

    def write_shard(path: Path, shard: int, outputs: Sequence[Output]) -> None:
        """The features of a shard's examples, once for each output."""
        if not path.exists():
            start = shard * ROWS_PER_SHARD
            rows = batches_of(study, "train", job.device, size, start, start + ROWS_PER_SHARD)
            found = features_of(model, outputs, rows, projection).cpu().numpy()
            store.write_tensors(path, pack(found, solver.storage), fingerprint, metadata)

    sampled = samples_of(task, solver)
    for shard in range(shard_count(study, "train")):
        of_shard = study.root, job.algorithm, job.checkpoint, shard
        write_shard(layout.features_file(*of_shard), shard, [output])
        if sampled:
            write_shard(layout.features_file(*of_shard, "curvature"), shard, sampled)
    shards = read_curvature(study, job.algorithm, job.checkpoint, fingerprint)
    tests = batches_of(study, "test", job.device, size)
    test_features = features_of(model, [of_test], tests, projection).cpu()
    q = torch.from_numpy(stored_out_to_loss(study, job.algorithm, job.checkpoint))
    factors = test_factors(gram(blocks_of(shards), solver, q), test_features, solver.damping)
    path = layout.factors_file(study.root, job.algorithm, job.checkpoint)
    store.write_tensors(path, {"factors": factors.numpy()}, fingerprint, metadata)


# --- all checkpoints ---------------------------------------------------------------------------


def _combine(study: StudyReader, algorithm: str, solver: Solver) -> None:
    """Write the mean out-to-loss gradient, the soft threshold and, for a dual, the mean scores."""
    fingerprint = scores_fingerprint(study, algorithm)
    path = layout.weighting_file(study.root, algorithm)
    scores_files = []
    if solver.kind != "primal":
        scores_files = [
            layout.scores_file(study.root, algorithm, n) for n in range(shard_count(study, "test"))
        ]
    if path.exists():
        store.read_tensors(path, fingerprint)
        if all(file.exists() for file in scores_files):
            return
    checkpoints = range(study.checkpoints(algorithm))
    out_to_loss = mean_out_to_loss(study, algorithm, len(checkpoints), solver)
    for shard, file in enumerate(scores_files):
        tests = slice(shard * ROWS_PER_SHARD, (shard + 1) * ROWS_PER_SHARD)
        total = np.zeros((), np.float32)
        for checkpoint in checkpoints:
            dual = store.read_tensors(layout.dual_file(study.root, algorithm, checkpoint))
            total = total + dual["scores"][tests]
        combined = combine(total, len(checkpoints), out_to_loss)
        store.write_tensors(file, {"scores": combined}, fingerprint)
    weighting = {"out_to_loss": out_to_loss}
    if solver.soft_threshold > 0:
        scores = unthresholded_scores(study, algorithm, out_to_loss)
        weighting["threshold"] = np.float32(solver.soft_threshold) * score_deviations(scores)
    # Written once: what an interrupted build leaves has either both or neither.
    store.write_tensors(path, weighting, fingerprint)


def score_deviations(scores: Scores) -> np.ndarray:
    """Standard deviation of each test example's scores, float32 `[n_test]`."""
    total, squares = np.zeros(scores.n_test), np.zeros(scores.n_test)
    for tile in scores.tiles():
        tests = slice(tile.tests.start, tile.tests.stop)
        total[tests] += tile.scores.sum(axis=1, dtype=np.float64)
        squares[tests] += np.square(tile.scores, dtype=np.float64).sum(axis=1)
    mean = total / scores.n_train
    variance = np.maximum(squares / scores.n_train - mean**2, 0)
    return np.sqrt(variance).astype(np.float32)
