"""What live queries need of a few checkpoints: their solvers and training traces."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import store
from engine.build.run import Run
from engine.build.stages.checkpoints import load_checkpoint, outputs_made_from, versions
from engine.build.stages.trak import (
    attribution_made_from,
    batches_of,
    memory_per_worker,
    stored_out_to_loss,
    stored_road,
)
from engine.store import layout
from engine.store.errors import StoreError
from engine.store.layout import ROWS_PER_SHARD
from engine.store.records import Live
from engine.study.examples import shard_count
from engine.study.live_and_maps import read_live
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader
from engine.tasks import load_task

if TYPE_CHECKING:
    from torch import nn

    from engine.attribution.trak.gradients import Plan
    from engine.attribution.trak.solver import Road

CODE = 1
"""Raised whenever the same checkpoints would leave something else."""

COMFORTABLE_BYTES = 2**30
"""What `auto` lets a query read: a fifth of a second from memory."""
MOST_BYTES = 2**33
"""What `auto` lets a query with one checkpoint read."""


@dataclass(frozen=True)
class Job:
    """One checkpoint to keep for live queries."""

    root: Path
    algorithm: str
    checkpoint: int
    device: str
    memory_bytes: int


def run(run: Run, algorithm: str) -> None:
    """Keep what is missing of an algorithm's live checkpoints.

    What belongs to other scores is replaced without being asked about: nothing is made from it.
    """
    study = run.study
    decided = layout.live_file(study.root, algorithm)
    made_from = live_made_from(study, algorithm)
    if decided.exists() and store.json_made_from(decided) != made_from:
        for folder in layout.stage_folders(study.root, "live", algorithm):
            shutil.rmtree(folder)
    kept = read_live(study, algorithm) if decided.exists() else choose(study, algorithm)
    jobs = []
    for checkpoint in range(kept.checkpoints):
        path = layout.live_solver_file(study.root, algorithm, checkpoint)
        fits = live_checkpoint_made_from(study, algorithm, checkpoint)
        files = [path, *_traces_files(study, algorithm, checkpoint)]
        there = [store.is_there(file, fits) for file in files]
        if not all(there):
            memory = memory_per_worker(run)
            jobs.append(Job(study.root, algorithm, checkpoint, run.device, memory))
    run.finish("live", algorithm, keep_checkpoint, jobs, max(1, kept.checkpoints))
    if not decided.exists():
        store.write_json(decided, asdict(kept), made_from)


# --- how many ----------------------------------------------------------------------------------


def choose(study: StudyReader, algorithm: str) -> Live:
    """Decide how many checkpoints are kept."""
    from engine.attribution.trak.gradients import plan_gradients
    from engine.attribution.trak.kernel import first_examples, outer_layers

    road, n = stored_road(study, algorithm), study.dataset.n_train
    if road.kind == "primal":
        kept, read = 4 * road.proj_dim**2, 4 * road.proj_dim * (road.proj_dim + n)
    else:
        model = load_checkpoint(study, algorithm, 0, "cpu")
        few = first_examples(batches_of(study, "train", "cpu", 16))
        plan = plan_gradients(model, load_task(study.dataset.task).model_output, few)
        outer = [plan.layers[path].weight for path in outer_layers(plan, model)]
        sides = sum(sum(plan.shapes[weight]) for weight in outer if weight is not None)
        kept = read = 4 * n * (n + road.width + sides)
    total, asked = study.checkpoints(algorithm), study.spec.live.checkpoints
    fitting = COMFORTABLE_BYTES // read
    if asked != "auto":
        count, reason = min(asked, total), "study.toml asks for it"
    elif read > MOST_BYTES:
        count = 0
        reason = (
            f"a query would read {_gib(read)} for each checkpoint, more than {_gib(MOST_BYTES)}; "
            "`checkpoints = 1` under [live] of study.toml has it done all the same"
        )
    else:
        count = min(total, max(1, fitting))
        reason = f"a query reads {_gib(read)} for each checkpoint"
    return Live(count, reason, count * kept, count * read)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def live_made_from(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of the decision."""
    road, total = stored_road(study, algorithm), study.checkpoints(algorithm)
    return store.fingerprint(
        "live",
        CODE,
        [attribution_made_from(study, algorithm, m, road) for m in range(total)],
        study.spec.live.checkpoints,
    )


def live_checkpoint_made_from(study: StudyReader, algorithm: str, checkpoint: int) -> str:
    """Fingerprint of what is kept of one checkpoint."""
    road = stored_road(study, algorithm)
    attribution = attribution_made_from(study, algorithm, checkpoint, road)
    return store.fingerprint(
        "live checkpoint", CODE, attribution, outputs_made_from(study, algorithm, checkpoint)
    )


# --- one checkpoint ----------------------------------------------------------------------------


def _traces_files(study: StudyReader, algorithm: str, checkpoint: int) -> list[Path]:
    """Where the traces of a dual's training examples are; the primal has its features."""
    if stored_road(study, algorithm).kind == "primal":
        return []
    shards = range(shard_count(study, "train"))
    return [layout.live_traces_file(study.root, algorithm, checkpoint, shard) for shard in shards]


def keep_checkpoint(job: Job) -> None:
    """Worker: the traces of the training examples (dual), then the solver."""
    from engine.attribution.trak.gradients import plan_gradients
    from engine.attribution.trak.kernel import first_examples
    from engine.attribution.trak.live import plan_as_json

    study = StudyReader.open(job.root)
    road = stored_road(study, job.algorithm)
    model = load_checkpoint(study, job.algorithm, job.checkpoint, job.device)
    made_from = live_checkpoint_made_from(study, job.algorithm, job.checkpoint)
    train = batches_of(study, "train", job.device, study.spec.trak.batch_size)
    plan = plan_gradients(model, load_task(study.dataset.task).model_output, first_examples(train))
    keep = _primal_solver if road.kind == "primal" else _dual_solver
    solver = keep(study, job, model, plan, road, made_from)
    made_by = {"plan": plan_as_json(plan), "device": job.device, **versions()}
    path = layout.live_solver_file(study.root, job.algorithm, job.checkpoint)
    store.write_tensors(path, {"solver": solver}, made_from, made_by)


def _dual_solver(
    study: StudyReader, job: Job, model: nn.Module, plan: Plan, road: Road, made_from: str
) -> np.ndarray:
    import torch

    from engine.attribution.trak.live import dual_solver, make_tracer

    output, size = load_task(study.dataset.task).model_output, study.spec.trak.batch_size
    seed = checkpoint_seed(study, job.checkpoint)
    tracer = make_tracer(model, output, plan, road, seed)
    for shard, path in enumerate(_traces_files(study, job.algorithm, job.checkpoint)):
        if not path.exists():
            start = shard * ROWS_PER_SHARD
            rows = batches_of(study, "train", job.device, size, start, start + ROWS_PER_SHARD)
            store.write_tensors(path, tracer.traces(rows()), made_from)
    train = batches_of(study, "train", job.device, size)
    q = torch.from_numpy(stored_out_to_loss(study, job.algorithm, job.checkpoint))
    return dual_solver(model, output, train, plan, road, seed, job.memory_bytes, q).cpu().numpy()


def _primal_solver(
    study: StudyReader, job: Job, model: nn.Module, plan: Plan, road: Road, made_from: str
) -> np.ndarray:
    import torch

    from engine.attribution.trak.attribute import gram
    from engine.attribution.trak.kernel import first_examples
    from engine.attribution.trak.live import make_tracer, primal_solver

    shards = [
        store.read_tensors(layout.features_file(study.root, job.algorithm, job.checkpoint, shard))[
            "features"
        ]
        for shard in range(shard_count(study, "train"))
    ]
    output = load_task(study.dataset.task).model_output
    tracer = make_tracer(model, output, plan, road, checkpoint_seed(study, job.checkpoint))
    first = first_examples(batches_of(study, "train", job.device, 16))
    mine = tracer.trace(first)["features"]
    stored = np.asarray(shards[0][: len(mine)])
    if not np.allclose(mine, stored, rtol=1e-2, atol=1e-3 * np.abs(stored).max()):
        raise StoreError(
            f"Checkpoint {job.checkpoint} gives other features here than where it was attributed "
            f"(on another device?). `dataloupe build {study.root} --rebuild trak` makes both here; "
            "`checkpoints = 0` under [live] of study.toml goes without live queries."
        )
    q = torch.from_numpy(stored_out_to_loss(study, job.algorithm, job.checkpoint))
    total = gram((torch.from_numpy(np.array(shard)) for shard in shards), road, q)
    return primal_solver(total, road.damping).numpy()


def trace_shards(study: StudyReader, algorithm: str, checkpoint: int) -> list[dict[str, Any]]:
    """Memory-mapped traces of the training examples at a kept checkpoint."""
    files = _traces_files(study, algorithm, checkpoint)
    if not files:
        shards = range(shard_count(study, "train"))
        files = [layout.features_file(study.root, algorithm, checkpoint, shard) for shard in shards]
    return [store.read_tensors(file) for file in files]
