"""Replay of a study's models: exact scores, computed on demand and kept in the study.

`engine.attribution.replay` says what is computed. Model number s is trained once more as checkpoint
s was, with what is needed to walk back, and every query costs one walk. Scores are kept one file a
query and model, under a fingerprint of the data, the recipe and the query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import store
from engine.build.models import initial_model, versions
from engine.build.retraining import has_recipe
from engine.build.stages.checkpoints import recipe_fingerprint
from engine.build.tasks import task_for, task_of
from engine.running import processes
from engine.store import layout
from engine.store.errors import DataloupeError, MissingCapability, SpecError, UploadError
from engine.study.examples import read_stacked_arrays
from engine.study.left_out import trained_on
from engine.study.lock import locked
from engine.study.models import checkpoint_seed
from engine.study.names import resolve_algorithm, resolve_rows
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    import torch

    from engine.attribution.replay.adjoints import Adjoints
    from engine.tasks import Task
    from engine.training.stepping import Training

CODE = 2
"""Increment when the same recipe and query would give other scores or files."""
MEMORY_MIB = 1024
_AT_ONCE = 32
"""Queries of one walk."""
_ROWS = 256
"""Test examples of one forward pass."""


@dataclass(frozen=True)
class Query:
    """A linear combination of outputs: of these test rows, with these weights."""

    tests: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Job:
    """One model to replay, and what is asked of it."""

    root: Path
    algorithm: str
    seed: int
    queries: tuple[Query, ...]
    memory_mib: int
    device: str


def replay(
    study: StudyReader,
    tests: Sequence[int | str] | np.ndarray,
    algorithm: str | None = None,
    seeds: Sequence[int] = (0,),
    weights: np.ndarray | None = None,
    memory_mib: int = MEMORY_MIB,
    device: str = "auto",
    workers: int | None = None,
    on_done: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Exact derivatives of model outputs by the weight of each training example.

    Args:
        tests: Rows or ids of test examples.
        algorithm: None: the study's first.
        seeds: Numbers of the models; model s is trained as checkpoint s of the study.
        weights: `[queries, tests]`: each query is the sum of the tests' outputs with these weights,
            at the cost of one test. None: each test is a query.
        memory_mib: Memory for the states of a training and for derivatives by them.
        workers: Number of worker processes; None: as many as the device can feed; 0: run in this
            process.
        on_done: Called with (models done, models in all): at the start, then after each model.

    Returns:
        Float32 `[seeds, queries, n_train]`, in the unit of the output: without a few training
        examples it changes by about minus the sum of their scores. Positive supports.

    Raises:
        UnknownName: No such example or algorithm. SpecError, UploadError: There is no recipe.
        MissingCapability: The model cannot be differentiated so.
        DataloupeError: The memory is not enough, or a training diverged.
        StoreError: Another process writes to the study, or kept scores are broken.
    """
    if isinstance(tests, str):
        tests = [tests]
    algorithm = resolve_algorithm(study, algorithm)
    check_replayable(study, algorithm)
    queries = _queries(resolve_rows(study, "test", tests), weights)
    if not queries or not len(seeds):
        raise DataloupeError("Replay needs at least one test example and one seed.")
    if any(seed < 0 for seed in seeds):
        raise DataloupeError(f"Seeds are numbers of models from 0, not {min(seeds)}.")
    device = processes.pick_device(device)
    fingerprint = replay_fingerprint(study, algorithm)
    files = {
        (seed, query): replay_file(study.root, algorithm, fingerprint, seed, query)
        for seed in seeds
        for query in queries
    }
    different_seeds, different_queries = dict.fromkeys(seeds), dict.fromkeys(queries)
    jobs = []
    for seed in different_seeds:
        missing = tuple(query for query in different_queries if not files[seed, query].exists())
        if missing:
            jobs.append(Job(study.root, algorithm, seed, missing, memory_mib, device))
    total = len(different_seeds)
    done = total - len(jobs)
    report = on_done or (lambda done, total: None)

    def count(job: Job | None, result: None) -> None:
        nonlocal done
        done += 1
        report(done, total)

    report(done, total)
    if jobs:
        workers = processes.default_workers(device) if workers is None else workers
        with locked(study):
            processes.run_jobs(replay_model, jobs, workers, count)
    return np.stack(
        [
            [store.read_tensors(files[seed, query], fingerprint)["scores"] for query in queries]
            for seed in seeds
        ]
    )


def check_replayable(study: StudyReader, algorithm: str) -> None:
    """Check that models of the algorithm can be trained again.

    Raises:
        SpecError: The algorithm has only weights. UploadError: It was uploaded.
        MissingCapability: It averages its weights.
    """
    if algorithm in study.uploads:
        raise UploadError(
            f"{study.uploads[algorithm].name} was uploaded as finished checkpoints, and replay "
            "walks back through a training: only algorithms of study.toml can be replayed."
        )
    if not has_recipe(study, algorithm):
        raise SpecError(
            f"algorithms.{algorithm} has only `weights`, and replay walks back through a training. "
            "Add the recipe that made them (epochs, batch_size, optimizer, learning_rate, ...) "
            f"under [algorithms.{algorithm}] in {layout.spec_file(study.root)}."
        )
    if study.algorithms[algorithm].averaging:
        raise MissingCapability(
            f"algorithms.{algorithm} averages its weights over training, and replay does not "
            "differentiate through that. Set averaging = 0 to have exact scores."
        )


def replay_file(root: Path, algorithm: str, fingerprint: str, seed: int, query: Query) -> Path:
    """Shard of one model's scores of a query: `scores` `[n_train]` and `value` `[1]`.

    Args:
        fingerprint: From `replay_fingerprint`.
    """
    name = f"{seed}-{store.fingerprint_of(query.tests, query.weights)}"
    return layout.replay_file(root, algorithm, fingerprint, name)


def write_scores(
    path: Path,
    query: Query,
    scores: np.ndarray,
    value: float,
    fingerprint: str,
    metadata: Mapping[str, Any],
) -> None:
    """Keep one model's scores of a query, with what was asked."""
    tensors = {"scores": scores.astype(np.float32), "value": np.array([value], np.float32)}
    asked = {"tests": list(query.tests), "weights": list(query.weights)}
    store.write_tensors(path, tensors, fingerprint, {**metadata, **asked})


def kept_queries(study: StudyReader, algorithm: str, fingerprint: str) -> list[Query]:
    """What was asked and is kept, of at least one model.

    Args:
        fingerprint: From `replay_fingerprint`.
    """
    found = set()
    for path in layout.replay_files(study.root, algorithm, fingerprint):
        asked = store.read_metadata(path)
        found.add(Query(tuple(asked["tests"]), tuple(asked["weights"])))
    return sorted(found, key=lambda query: query.tests)


def replay_fingerprint(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of an algorithm's replays. It reads the files that the recipe names."""
    recipe = recipe_fingerprint(study, algorithm)
    return store.fingerprint_of("replay", CODE, recipe, study.spec.seed, study.dataset.output)


def _queries(rows: np.ndarray, weights: np.ndarray | None) -> list[Query]:
    if weights is None:
        return [Query((int(row),), (1.0,)) for row in rows]
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 2 or weights.shape[1] != len(rows) or not np.isfinite(weights).all():
        raise DataloupeError(
            f"weights must be finite numbers [queries, {len(rows)} tests], not of shape "
            f"{list(weights.shape)}."
        )
    return [Query(tuple(map(int, rows)), tuple(map(float, one))) for one in weights]


def replay_model(job: Job) -> None:
    """Worker: train one model, walk back for every query, and keep the scores."""
    from engine.attribution.replay.reverse import walk_back
    from engine.attribution.replay.states import Recording
    from engine.training.stepping import Training
    from engine.training.trainer import check_finite

    study = StudyReader.open(job.root)
    spec, seed = study.spec.algorithms[job.algorithm], checkpoint_seed(study, job.seed)
    fingerprint = replay_fingerprint(study, job.algorithm)
    metadata = {"seed": seed, "device": job.device, **versions()}
    training = Training(
        task_of(study),
        initial_model(study, spec, seed),
        read_stacked_arrays(study, "train"),
        study.dataset.encoding,
        spec,
        seed,
        job.device,
        trained_on(study, job.algorithm),
    )
    at_once, left = _shares(training, len(job.queries), job.memory_mib * 2**20)
    with training.running():
        recording = Recording(training, left)
        recording.run()
        check_finite(training.model, spec)
        task = task_for(study, training.model, seed)
        for first in range(0, len(job.queries), at_once):
            queries = job.queries[first : first + at_once]
            recording.to_last()
            adjoints, values = _start(study, task, training, queries, job.device)
            found = walk_back(recording, adjoints)
            if not np.isfinite(found).all():
                raise DataloupeError(
                    f"Model {job.seed} of {job.algorithm}: its derivative overflows, as its "
                    "training is not smooth. Try a lower learning_rate, larger batches, or a "
                    "smooth activation such as GELU."
                )
            for query, scores, value in zip(queries, found, values, strict=True):
                path = replay_file(job.root, job.algorithm, fingerprint, job.seed, query)
                write_scores(path, query, scores, float(value), fingerprint, metadata)


def _shares(training: Training, queries: int, most: int) -> tuple[int, int]:
    """(queries at once, bytes for states). Derivatives may take half of the memory."""
    from engine.attribution.replay.updates import moments_of

    updates = training.updates()
    # Adjoints of a parameter and its moments, of its gradient, and what a step adds.
    each = sum(
        parameter.numel() * parameter.element_size() * (3 + len(moments_of(update)))
        for parameter, update in zip(training.trained, updates, strict=True)
    )
    at_once = max(1, min(queries, _AT_ONCE, most // 2 // max(1, each)))
    return at_once, most - at_once * each


def _start(
    study: StudyReader, task: Task, training: Training, queries: Sequence[Query], device: str
) -> tuple[Adjoints, torch.Tensor]:
    """Adjoints of the queries at the end of the training, and their values."""
    import torch

    from engine.attribution.replay.query import adjoints_of
    from engine.training.outputs import read_batch

    rows = sorted({row for query in queries for row in query.tests})
    places = {row: place for place, row in enumerate(rows)}
    combinations = torch.zeros(len(queries), len(rows), dtype=torch.float64)
    for number, query in enumerate(queries):
        for row, weight in zip(query.tests, query.weights, strict=True):
            combinations[number, places[row]] += weight
    arrays: Any = read_stacked_arrays(study, "test")
    found: Adjoints | None = None
    values = torch.zeros(len(queries), dtype=torch.float64)
    for first in range(0, len(rows), _ROWS):
        some = np.array(rows[first : first + _ROWS])
        batch = read_batch(task, arrays, some, study.dataset.encoding, device)
        part, of_part = adjoints_of(
            training, task.model_output, batch, combinations[:, first : first + _ROWS]
        )
        values += of_part.double().cpu()
        if found is None:
            found = part
        else:
            found.add(part)
    assert found is not None
    return found, values
