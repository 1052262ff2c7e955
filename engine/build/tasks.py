"""The task of a study, one of Dataloupe's or the user's own code, and the context of its models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.store import layout
from engine.store.errors import SpecError
from engine.store.trust import PREFIX, Code, load_code
from engine.study.examples import read_stacked_arrays
from engine.study.models import checkpoint_seed
from engine.study.reader import StudyReader
from engine.tasks import load_task

if TYPE_CHECKING:
    import torch

    from engine.attribution.trak.plan import Output
    from engine.attribution.trak.solver import Solver
    from engine.tasks import Task


def task_of(study: StudyReader) -> Task:
    """Import and return the task of a study.

    Raises:
        SpecError: There is no such task. UntrustedCode: It is code that this machine's user has
            not trusted.
    """
    name = study.spec.task.name
    if not name.startswith(PREFIX):
        return load_task(name)
    found = load_code(Code.of(name), study.root, ())()
    # By name: a module that was imported twice has a class `Task` of its own.
    if type(found).__name__ != "Task":
        raise SpecError(f"{name!r} returns {found!r}, not an engine.tasks.Task.")
    return found  # type: ignore[no-any-return]


def task_at(study: StudyReader, algorithm: str, checkpoint: int) -> Task:
    """The task whose outputs use the context of a checkpoint. Raises as `task_of`."""
    from engine.tasks.context import bind

    task = task_of(study)
    if task.context is None:
        return task
    path = layout.context_file(study.root, algorithm, checkpoint)
    return bind(task, store.read_tensors(path))


def attributed_task(study: StudyReader, algorithm: str, checkpoint: int) -> Task:
    """`task_at`, with the outputs in the precision in which their gradients are taken."""
    from engine.tasks.precision import in_precision

    return in_precision(task_at(study, algorithm, checkpoint), study.spec.trak.precision)


def samples_of(task: Task, solver: Solver) -> list[Output]:
    """The scalars whose gradients sample the curvature (`ModelOutput.sample`), if it is sampled."""
    sample = task.outputs[0].sample
    if not solver.samples:
        return []
    assert sample is not None, f"{task.name} has nothing to sample curvature with"
    return [sample(number) for number in range(solver.samples)]


def task_for(study: StudyReader, model: torch.nn.Module, seed: int) -> Task:
    """The task whose outputs use a new context for a model that is not a checkpoint.

    Args:
        model: Trained, in eval mode.
        seed: Of its training: the same model and seed have the same context.
    """
    from engine.tasks.context import bind

    task = task_of(study)
    return bind(task, new_context(study, task, model, seed))


def task_to_compare(study: StudyReader, model: torch.nn.Module) -> Task:
    """The task whose outputs use the context of the study's first seed, whatever the model's own
    is, where models are compared example by example: in audits of unlearning, and in subset runs
    whose contexts are noise (`engine.tasks.NOISY`)."""
    return task_for(study, model, checkpoint_seed(study, 0))


def new_context(
    study: StudyReader, task: Task, model: torch.nn.Module, seed: int
) -> dict[str, np.ndarray]:
    """The context of a model, and its gallery; empty if the task has none."""
    if task.context is None:
        return {}
    encoding = study.dataset.encoding
    found = task.context(model.eval(), read_stacked_arrays(study, "train"), encoding, seed)
    if task.gallery is None:
        return found
    return {**found, **task.gallery(model, read_stacked_arrays(study, "test"), encoding)}
