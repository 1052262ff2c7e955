"""Store what live queries need, in `live/`: inverses and training features of a few checkpoints.

A live query attributes the prediction for an example from outside the study. `live.json` records
how many checkpoints are kept for that, and why.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.attribution.scores.packed_rows import bytes_per_row, largest_error
from engine.attribution.trak.solver import ROUNDING
from engine.build.batches import batches_of, stored_out_to_loss
from engine.build.models import load_checkpoint, versions
from engine.build.run import Run
from engine.build.solver import limit_workers, memory_per_worker
from engine.build.stages.checkpoints import outputs_fingerprint
from engine.build.stages.trak import attribution_fingerprint
from engine.build.tasks import attributed_task
from engine.store import layout
from engine.store.errors import StoreError
from engine.store.layout import ROWS_PER_SHARD
from engine.store.records import Live
from engine.study.live_and_maps import read_live, training_feature_files
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_curvature, read_features, stored_solver

if TYPE_CHECKING:
    from torch import nn

    from engine.attribution.trak.plan import Plan
    from engine.attribution.trak.solver import Solver

CODE = 1
"""Increment when the same checkpoints would give other files."""

COMFORTABLE_BYTES = 2**30
"""Most bytes that a query may read with `auto`: a fifth of a second from memory."""
MOST_BYTES = 2**33
"""Most bytes that a query with a single checkpoint may read with `auto`."""


@dataclass(frozen=True)
class Job:
    """Prepare one checkpoint for live queries."""

    root: Path
    algorithm: str
    checkpoint: int
    device: str
    memory_bytes: int


def run(run: Run, algorithm: str) -> None:
    """Compute an algorithm's missing live files.

    Stale files are replaced without asking, because no other file depends on them.
    """
    study = run.study
    decided = layout.live_file(study.root, algorithm)
    fingerprint = live_fingerprint(study, algorithm)
    if decided.exists() and store.json_fingerprint(decided) != fingerprint:
        for folder in layout.stage_folders(study.root, "live", algorithm):
            shutil.rmtree(folder)
    kept = read_live(study, algorithm) if decided.exists() else choose(study, algorithm)
    jobs = []
    for checkpoint in range(kept.checkpoints):
        path = layout.live_inverse_file(study.root, algorithm, checkpoint)
        expected = live_checkpoint_fingerprint(study, algorithm, checkpoint)
        files = [path, *training_feature_files(study, algorithm, checkpoint)]
        # Check every file, so that a stale one is refused even if another is missing.
        exists = [store.is_there(file, expected) for file in files]
        if not all(exists):
            memory = memory_per_worker(run)
            jobs.append(Job(study.root, algorithm, checkpoint, run.device, memory))
    if jobs:
        run = limit_workers(run, stored_solver(study, algorithm))
    run.run_remaining("live", algorithm, keep_checkpoint, jobs, max(1, kept.checkpoints))
    if not decided.exists():
        store.write_json(decided, asdict(kept), fingerprint)


# --- the number of checkpoints -----------------------------------------------------------------


def choose(study: StudyReader, algorithm: str) -> Live:
    """Choose how many checkpoints to keep for live queries."""
    from engine.attribution.trak.kernel import first_examples, outer_layers
    from engine.attribution.trak.make_plan import plan_gradients

    solver, n = stored_solver(study, algorithm), study.dataset.n_train
    if solver.kind == "primal":
        kept = read = 4 * solver.proj_dim**2
        read += n * bytes_per_row(solver.proj_dim, solver.storage)
    else:
        model = load_checkpoint(study, algorithm, 0, "cpu")
        few = first_examples(batches_of(study, "train", "cpu", 16))
        plan = plan_gradients(model, attributed_task(study, algorithm, 0).trained_output, few)
        outer = [plan.layers[path].weight for path in outer_layers(plan, model)]
        sides = sum(sum(plan.shapes[weight]) for weight in outer if weight is not None)
        kept = read = 4 * n * (n + solver.width + sides)
    total, requested = study.checkpoints(algorithm), study.spec.live.checkpoints
    fitting = COMFORTABLE_BYTES // read
    if requested != "auto":
        count, reason = min(requested, total), "set in study.toml"
    elif read > MOST_BYTES:
        count = 0
        reason = (
            f"a query would read {_gib(read)} for each checkpoint, more than {_gib(MOST_BYTES)}; "
            "set `checkpoints = 1` under [live] in study.toml to allow it"
        )
    else:
        count = min(total, max(1, fitting))
        reason = f"a query reads {_gib(read)} for each checkpoint"
    return Live(count, reason, count * kept, count * read)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def live_fingerprint(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of the choice of how many checkpoints to keep."""
    solver, total = stored_solver(study, algorithm), study.checkpoints(algorithm)
    return store.fingerprint_of(
        "live",
        CODE,
        [attribution_fingerprint(study, algorithm, m, solver) for m in range(total)],
        study.spec.live.checkpoints,
    )


def live_checkpoint_fingerprint(study: StudyReader, algorithm: str, checkpoint: int) -> str:
    """Fingerprint of one checkpoint's live files."""
    solver = stored_solver(study, algorithm)
    attribution = attribution_fingerprint(study, algorithm, checkpoint, solver)
    return store.fingerprint_of(
        "live checkpoint", CODE, attribution, outputs_fingerprint(study, algorithm, checkpoint)
    )


# --- one checkpoint ----------------------------------------------------------------------------


def keep_checkpoint(job: Job) -> None:
    """Worker: write the training features (dual only), then the inverse."""
    from engine.attribution.trak.kernel import first_examples
    from engine.attribution.trak.make_plan import plan_gradients
    from engine.attribution.trak.new_examples import plan_as_json

    study = StudyReader.open(job.root)
    solver = stored_solver(study, job.algorithm)
    model = load_checkpoint(study, job.algorithm, job.checkpoint, job.device)
    fingerprint = live_checkpoint_fingerprint(study, job.algorithm, job.checkpoint)
    train = batches_of(study, "train", job.device, study.spec.trak.batch_size)
    output = attributed_task(study, job.algorithm, job.checkpoint).trained_output
    plan = plan_gradients(model, output, first_examples(train))
    compute = _primal_inverse if solver.kind == "primal" else _dual_inverse
    inverse = compute(study, job, model, plan, solver, fingerprint)
    metadata = {"plan": plan_as_json(plan), "device": job.device, **versions()}
    path = layout.live_inverse_file(study.root, job.algorithm, job.checkpoint)
    store.write_tensors(path, {"inverse": inverse}, fingerprint, metadata)


def _dual_inverse(
    study: StudyReader, job: Job, model: nn.Module, plan: Plan, solver: Solver, fingerprint: str
) -> np.ndarray:
    import torch

    from engine.attribution.trak.new_examples import dual_inverse, make_feature_extractor

    output = attributed_task(study, job.algorithm, job.checkpoint).trained_output
    size = study.spec.trak.batch_size
    seed = checkpoint_seed(study, job.checkpoint)
    extractor = make_feature_extractor(model, output, plan, solver, seed)
    for shard, path in enumerate(training_feature_files(study, job.algorithm, job.checkpoint)):
        if not path.exists():
            start = shard * ROWS_PER_SHARD
            rows = batches_of(study, "train", job.device, size, start, start + ROWS_PER_SHARD)
            store.write_tensors(path, extractor.extract_all(rows()), fingerprint)
    train = batches_of(study, "train", job.device, size)
    q = torch.from_numpy(stored_out_to_loss(study, job.algorithm, job.checkpoint))
    inverse, _ = dual_inverse(model, output, train, plan, solver, seed, job.memory_bytes, q)
    return inverse.cpu().numpy()


def _primal_inverse(
    study: StudyReader, job: Job, model: nn.Module, plan: Plan, solver: Solver, fingerprint: str
) -> np.ndarray:
    import torch

    from engine.attribution.trak.kernel import first_examples
    from engine.attribution.trak.new_examples import make_feature_extractor, primal_inverse
    from engine.attribution.trak.plan import rows_of
    from engine.attribution.trak.primal import blocks_of, gram

    shards = read_features(study, job.algorithm, job.checkpoint)
    output = attributed_task(study, job.algorithm, job.checkpoint).trained_output
    extractor = make_feature_extractor(
        model, output, plan, solver, checkpoint_seed(study, job.checkpoint)
    )
    first = first_examples(batches_of(study, "train", job.device, 16))
    computed = extractor.extract(first)["features"]
    rows = rows_of(first, 0)
    stored = np.asarray(shards[0][rows if isinstance(rows, slice) else rows.numpy()])
    off = 1e-3 + largest_error(solver.storage) + ROUNDING[solver.precision]
    tolerance = off * np.abs(stored).max()
    if not np.allclose(computed, stored, rtol=1e-2, atol=tolerance):
        raise StoreError(
            f"Checkpoint {job.checkpoint} of {job.algorithm} gives different features than those "
            "stored by the trak stage, perhaps because it ran on a different device. Run "
            f"`dataloupe build {study.root} --rebuild trak` to recompute both here, or set "
            "`checkpoints = 0` under [live] in study.toml to disable live queries."
        )
    q = torch.from_numpy(stored_out_to_loss(study, job.algorithm, job.checkpoint))
    curvature = read_curvature(study, job.algorithm, job.checkpoint)
    total = gram(blocks_of(curvature), solver, q)
    return primal_inverse(total, solver.damping).numpy()
