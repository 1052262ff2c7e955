"""Retrained models: the learning algorithm, trained on all data except a removal set.

All retrained models of a study are in one store, shared by verifications and audits. A model is
identified by the recipe, the removed rows and the seed, so it is trained once, and models made
before and after a change of study.toml are never mixed. The store keeps of each model:

- its outputs on the test examples, always;
- what audits of unlearning compare, such as class logits, of some training examples and of all test
  examples, if one needs it;
- its weights, if it was trained with all data: an audit unlearns from them;
- what it makes from the seeds of the made test examples, if models made some.

Seeds. Model s is trained with seed number s of the study, and checkpoint s is model s trained with
all data, so the checkpoints are in the store for free. A verification compares pairs: model s
without the removal set and model s with all data, for s = 0, 1, … An audit of unlearning compares
two distributions, so its oracles must not share a seed with the originals, which are models 0, 1, …
trained with all data. Therefore oracles start at `FIRST_ORACLE`. A seed cannot serve both a pair
and an oracle, so a verification and an audit of the same removal set share the models trained with
all data, and each trains its own models without the set. No other choice of seeds would train
fewer models for the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import store
from engine.attribution.datamodels.run_bank import output_problem
from engine.build.models import initial_model, load_checkpoint, untrained_model, versions
from engine.build.stages.checkpoints import outputs_fingerprint, recipe_fingerprint
from engine.build.tasks import task_at, task_for, task_of, task_to_compare
from engine.running import processes
from engine.store import layout
from engine.store.errors import DataloupeError, SpecError, UploadError
from engine.store.text import counted
from engine.study.examples import read_stacked_arrays
from engine.study.groups import emptied_groups
from engine.study.left_out import trained_on
from engine.study.lock import locked
from engine.study.models import checkpoint_seed
from engine.study.names import resolve_training_rows
from engine.study.reader import StudyReader
from engine.study.trajectories import read_making
from engine.tasks.outcomes import audited_records, outcomes_named

if TYPE_CHECKING:
    import torch

CODE = 4
"""Increment when the same recipe and removal set would give different models or files. Version 1
kept the oracles of audits in a separate store."""
FIRST_ORACLE = 1_000_000
"""Seed number of an audit's first oracle; far above the seeds of originals and of pairs."""

Removal = tuple[int, ...]
"""Training rows that are left out, ascending."""
NOTHING: Removal = ()
MADE, MADE_FEATURES = "made", "made_features"
"""What a model makes, and its features, among the arrays of its shard."""


@dataclass(frozen=True)
class RetrainedModel:
    """A retrained model, and the results that are needed from it.

    Attributes:
        removed: Training rows left out; `NOTHING` for a model trained with all data.
        seed: Number of the study's seed.
        rows: Training rows, ascending, of which an audit needs `audited_records`, in addition to
            all test examples; None: no audit does.
        weights: Whether its weights are needed. Only for a model trained with all data.
    """

    removed: Removal
    seed: int
    rows: Removal | None = None
    weights: bool = False


@dataclass(frozen=True)
class Outputs:
    """Outputs of one model on the test examples.

    Attributes:
        output: Model outputs, float32 `[n_test]`.
        answers: Numbers of the models' answers, such as the predicted classes, int32 `[n_test]`;
            None if the task has no outcomes.
    """

    output: np.ndarray
    answers: np.ndarray | None


@dataclass(frozen=True)
class Job:
    """One model to train."""

    root: Path
    algorithm: str
    model: RetrainedModel
    device: str


def removal_of(study: StudyReader, examples: Iterable[int | str]) -> Removal:
    """The training rows for rows or ids, ascending and unique.

    Raises:
        UnknownName: There is no such example.
        DataloupeError: None is given, or a class would be left without examples.
    """
    rows = resolve_training_rows(study, examples)
    if emptied := emptied_groups(study, rows):
        raise DataloupeError(
            f"The removal set holds every training example of class {emptied[0]!r}, and a model "
            "cannot learn a class it never sees: keep at least one."
        )
    return tuple(rows.tolist())


def check_recipe(study: StudyReader, algorithm: str) -> None:
    """Check that the algorithm has a recipe for retraining.

    Raises:
        SpecError: The algorithm has only weights; the message lists what to add.
        UploadError: The algorithm was uploaded, so its recipe is unknown.
    """
    if algorithm in study.uploads:
        raise UploadError(
            f"{study.uploads[algorithm].name} was uploaded as finished checkpoints, so removal can "
            "be predicted but not verified by retraining: only algorithms of study.toml can be "
            "trained."
        )
    if not has_recipe(study, algorithm):
        raise SpecError(
            f"algorithms.{algorithm} has only `weights`, so removal can be predicted but not "
            "verified by retraining. Add the recipe that made them (epochs, batch_size, optimizer, "
            f"learning_rate, ...) under [algorithms.{algorithm}] in {layout.spec_file(study.root)}."
        )


def has_recipe(study: StudyReader, algorithm: str) -> bool:
    """Whether models of the algorithm can be trained, and not only read."""
    spec = study.algorithms[algorithm]
    return not spec.weights or "epochs" in spec.model_fields_set


def retrain(
    study: StudyReader,
    algorithm: str,
    removals: Sequence[Removal],
    seeds: int,
    device: str = "auto",
    workers: int | None = None,
    on_done: Callable[[Removal, int, int], None] | None = None,
) -> None:
    """Train the missing models without each of `removals`, for seeds 0 to `seeds` − 1.

    The empty removal means models trained with all data. The first of those are the checkpoints.

    Args:
        removals: From `removal_of`, or empty.
        on_done: Called with (removal, models done, models in all): once at the start with the
            first removal, then after each model.

    Other arguments and errors as for `train_missing`.
    """
    models = [
        RetrainedModel(removed, seed)
        for removed in dict.fromkeys(removals)
        for seed in range(seeds)
    ]

    def report(model: RetrainedModel | None, done: int, total: int) -> None:
        if on_done is not None:
            on_done(models[0].removed if model is None else model.removed, done, total)

    if models:
        train_missing(study, algorithm, models, device, workers, report)


def train_missing(
    study: StudyReader,
    algorithm: str,
    models: Sequence[RetrainedModel],
    device: str = "auto",
    workers: int | None = None,
    on_done: Callable[[RetrainedModel | None, int, int], None] | None = None,
) -> None:
    """Train the models that are not in the store yet.

    Args:
        workers: Number of worker processes; None: as many as the device can feed; 0: run in this
            process.
        on_done: Called with (None, models done, models in all) at the start, then with each model
            when it is done. Models already in the store count as done.

    Raises:
        SpecError: There is no recipe. DataloupeError: A training diverged or collapsed.
        StoreError: Another process writes to the study, or the disk is full.
        InterruptedBuild: Ctrl-C. Finished models are kept.
    """
    check_recipe(study, algorithm)
    missing = [model for model in models if not is_trained(study, algorithm, model)]
    done = len(models) - len(missing)
    report = on_done or (lambda model, done, total: None)
    report(None, done, len(models))
    if not missing:
        return
    device = processes.pick_device(device)
    workers = processes.default_workers(device) if workers is None else workers

    def count(job: Job, result: None) -> None:
        nonlocal done
        done += 1
        report(job.model, done, len(models))

    jobs = [Job(study.root, algorithm, model, device) for model in missing]
    with locked(study):
        processes.run_jobs(train_model, jobs, workers, count)


def is_trained(study: StudyReader, algorithm: str, model: RetrainedModel) -> bool:
    """Whether the store holds all results that are needed from a model."""
    path = model_file(study, algorithm, model.removed, model.seed)
    if model.weights and not weights_file(study, algorithm, model.seed).exists():
        return False
    if model.rows is not None:
        return path.exists() and bool(np.isin(model.rows, _audited_rows(path)).all())
    if model.weights and is_checkpoint(study, algorithm, model.seed):
        return True
    return _is_checkpoint(study, algorithm, model.removed, model.seed) or path.exists()


def retrained(study: StudyReader, algorithm: str, removed: Removal, seed: int) -> Outputs:
    """Outputs of a model; `removed` is empty for a model trained with all data.

    Raises:
        StoreError: The model is not trained yet, or its shard is broken.
    """
    if _is_checkpoint(study, algorithm, removed, seed):
        path = layout.outputs_file(study.root, algorithm, seed, "test")
        outputs = store.read_tensors(path, outputs_fingerprint(study, algorithm, seed))
        return Outputs(outputs["output"], _answers(study, outputs))
    path = model_file(study, algorithm, removed, seed)
    shard = store.read_tensors(path, retrained_fingerprint(study, algorithm, removed))
    return Outputs(shard["output"], shard.get("answers"))


def _answers(study: StudyReader, outputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """What a model answers, from its record; None without outcomes."""
    outcomes = outcomes_named(study.dataset.outcomes)
    return None if outcomes is None else outcomes.answers(outputs[outcomes.record])


def retrained_fingerprint(study: StudyReader, algorithm: str, removed: Removal) -> str:
    """Fingerprint of the models without `removed`: data, recipe, and removed rows."""
    recipe = recipe_fingerprint(study, algorithm)
    return store.fingerprint_of("retrained", CODE, recipe, study.spec.seed, list(removed))


def model_file(study: StudyReader, algorithm: str, removed: Removal, seed: int) -> Path:
    """Shard of a retrained model: `output`, `removed`, `answers` with outcomes, and `made`
    `[seeds, ...]` and `made_features` `[seeds, d]` where models make examples.

    If an audit needed them, also `rows` and, of each array of `audited_records`, such as `logits`,
    `train_logits` `[rows, classes]` and `test_logits` `[n_test, classes]`.
    """
    fingerprint = retrained_fingerprint(study, algorithm, removed)
    return layout.retrained_file(study.root, algorithm, fingerprint, seed)


def is_checkpoint(study: StudyReader, algorithm: str, seed: int) -> bool:
    """Whether the weights of this model, trained with all data, are a checkpoint of the study."""
    return (
        seed < study.checkpoints(algorithm)
        and layout.checkpoint_file(study.root, algorithm, seed).exists()
    )


def weights_file(study: StudyReader, algorithm: str, seed: int) -> Path:
    """Weights of a model trained with all data: the study's checkpoint if there is one."""
    if is_checkpoint(study, algorithm, seed):
        return layout.checkpoint_file(study.root, algorithm, seed)
    return _own_weights_file(study, algorithm, seed)


def _own_weights_file(study: StudyReader, algorithm: str, seed: int) -> Path:
    fingerprint = retrained_fingerprint(study, algorithm, NOTHING)
    return layout.retrained_weights_file(study.root, algorithm, fingerprint, seed)


def _is_checkpoint(study: StudyReader, algorithm: str, removed: Removal, seed: int) -> bool:
    """Whether the model is a checkpoint that the study itself trained, with this seed."""
    spec = study.spec.algorithms[algorithm]
    if removed or spec.weights or seed >= spec.checkpoints:
        return False
    return layout.outputs_file(study.root, algorithm, seed, "test").exists()


def _audited_rows(path: Path) -> np.ndarray:
    """Training rows whose outputs a shard holds, ascending."""
    return store.read_tensors(path).get("rows", np.empty(0, np.int64))


def train_model(job: Job) -> None:
    """Worker: train one model and keep the needed results."""
    from engine.training.outputs import evaluate

    study, model = StudyReader.open(job.root), job.model
    encoding = study.dataset.encoding
    fingerprint = retrained_fingerprint(study, job.algorithm, model.removed)
    metadata = {"seed": checkpoint_seed(study, model.seed), "device": job.device, **versions()}
    trained = _trained(study, job, metadata)
    task = task_for(study, trained, checkpoint_seed(study, model.seed))
    outputs = evaluate(task, trained, read_stacked_arrays(study, "test"), encoding, 512, job.device)
    checked = {"test": outputs["output"]}
    tensors = {"output": outputs["output"], "removed": np.array(model.removed, np.int32)}
    if (answers := _answers(study, outputs)) is not None:
        tensors["answers"] = answers
    tensors |= made_by(study, job.algorithm, trained, job.device)
    path = model_file(study, job.algorithm, model.removed, model.seed)
    if model.rows is not None:
        rows = np.array(model.rows, np.int64)
        if path.exists():
            rows = np.union1d(rows, _audited_rows(path))
        some = {name: array[rows] for name, array in read_stacked_arrays(study, "train").items()}
        if task.context is not None:
            task = task_to_compare(study, trained)
            tests = read_stacked_arrays(study, "test")
            outputs = evaluate(task, trained, tests, encoding, 512, job.device)
        of_rows = evaluate(task, trained, some, encoding, 512, job.device)
        tensors["rows"] = rows
        for name in audited_records(study.dataset.outcomes, study.dataset.output):
            tensors |= {f"train_{name}": of_rows[name], f"test_{name}": outputs[name]}
        checked["train"] = of_rows["output"]
    for split, output in checked.items():
        if found := output_problem(output):
            raise DataloupeError(
                f"{_name(job.algorithm, model.removed, model.seed)}: the model collapsed, {found} "
                f"on the {split} split. Try a different removal set, a lower learning_rate, or a "
                "longer warmup."
            )
    store.write_tensors(path, tensors, fingerprint, metadata)


def made_by(
    study: StudyReader, algorithm: str, model: torch.nn.Module, device: str
) -> dict[str, np.ndarray]:
    """What a model in eval mode makes from the seeds of the made test examples, as `MADE`, and as
    the study's first checkpoint sees it, `MADE_FEATURES`; nothing where no models made any."""
    from engine.training.outputs import evaluate

    making, make = read_making(study), task_of(study).generate
    if making is None or make is None:
        return {}
    encoding = study.dataset.encoding
    found = make(model, encoding, making.seeds, making.steps, 1, making.guidance)
    first = load_checkpoint(study, algorithm, 0, device)
    seen = evaluate(task_at(study, algorithm, 0), first, found.arrays, encoding, 512, device)
    return {MADE: found.pictures, MADE_FEATURES: seen["embeddings"]}


def _trained(study: StudyReader, job: Job, metadata: Mapping[str, Any]) -> torch.nn.Module:
    """Train the model of a job. A model trained with all data is stored, and read if it exists."""
    from engine.training.weights import load_weights, save_weights

    algorithm, model = job.algorithm, job.model
    path = _own_weights_file(study, algorithm, model.seed)
    if not model.removed and path.exists():
        kept = untrained_model(study, study.spec.algorithms[algorithm], seed=0)
        load_weights(path, kept)
        return kept
    trained = model_without(study, algorithm, model.removed, model.seed, job.device)
    if not model.removed:
        save_weights(path, trained, path.parent.name, metadata)
    return trained


def model_without(
    study: StudyReader, algorithm: str, removed: Removal, seed: int, device: str
) -> torch.nn.Module:
    """Train model number `seed` on all data except `removed`; return it in eval mode.

    Raises:
        DataloupeError: Training diverged.
    """
    from engine.training.trainer import train

    spec, number = study.spec.algorithms[algorithm], checkpoint_seed(study, seed)
    task, encoding = task_of(study), study.dataset.encoding
    model = initial_model(study, spec, number)
    arrays, subset = read_stacked_arrays(study, "train"), trained_on(study, algorithm, removed)
    try:
        return train(task, model, arrays, encoding, spec, number, device, subset)
    except DataloupeError as error:
        raise DataloupeError(f"{_name(algorithm, removed, seed)}: {error}") from error


def _name(algorithm: str, removed: Removal, seed: int) -> str:
    data = f"without {counted(len(removed), 'training example')}" if removed else "with all data"
    return f"Model {seed} of {algorithm}, trained {data}"
