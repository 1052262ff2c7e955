"""Check every algorithm's model before anything is trained. See `engine.training.checking`."""

from __future__ import annotations

from engine.build.batches import batches_of
from engine.build.models import (
    folder_notes,
    load_initial_weights,
    load_own_weights,
    untrained_model,
)
from engine.build.retraining import has_recipe
from engine.build.run import Run
from engine.build.tasks import task_for
from engine.models.hf_folder import folder_of
from engine.store import layout
from engine.store.errors import CheckpointError, DataloupeError, SpecError
from engine.store.layout import SPLITS
from engine.store.records import Progress
from engine.study.capabilities import require
from engine.study.left_out import left_out
from engine.study.models import checkpoint_seed, only_file, user_file
from engine.study.reader import StudyReader

_EXAMPLES = 8


def check_models(run: Run) -> None:
    """Check the model of each algorithm that has checkpoints to make, and report what it found.

    Raises:
        SpecError: A model cannot be trained or attributed, or `without` does not fit the data; the
            message begins with the algorithm.
        CheckpointError: The user's weights do not fit, or as in `check_model`.
        MissingCapability: The run bank would keep class logits, and there are no classes.
    """
    bank = run.study.spec.subset_runs
    if bank.masks and bank.logits:
        require(run.study, "classes", "A run bank of class logits (logits = true)")
    for algorithm in run.study.spec.algorithms:
        left_out(run.study, algorithm)  # its errors, before anything is trained
        if _is_made(run.study, algorithm):
            continue
        try:
            notes = _check(run.study, algorithm)
        except CheckpointError as error:
            raise CheckpointError(f"algorithms.{algorithm}: {error}") from error
        except SpecError as error:
            raise SpecError(f"algorithms.{algorithm}: {error}") from error
        total = run.study.checkpoints(algorithm)
        for note in notes:
            run.report(Progress("checkpoints", algorithm, 0, total, f"{algorithm}: {note}"))


def _is_made(study: StudyReader, algorithm: str) -> bool:
    return all(
        layout.outputs_file(study.root, algorithm, checkpoint, split).exists()
        for checkpoint in range(study.checkpoints(algorithm))
        for split in SPLITS
    )


def _check(study: StudyReader, algorithm: str) -> list[str]:
    from engine.training.checking import check_model
    from engine.training.weights import check_weights

    spec = study.spec.algorithms[algorithm]
    seed = checkpoint_seed(study, 0)
    model = untrained_model(study, spec, seed)
    notes = folder_notes(study, spec)
    if spec.weights:
        for path in spec.weights[1:]:
            if folder_of(spec.architecture) is not None and user_file(study, path).is_dir():
                load_own_weights(study, spec, path, model)
            else:
                check_weights(only_file(user_file(study, path)), model)
        notes += load_own_weights(study, spec, spec.weights[0], model)
    else:
        notes += load_initial_weights(study, spec, model)
    batch = next(batches_of(study, "train", "cpu", _EXAMPLES)())
    if len(next(iter(batch.values()))) < 2:
        raise DataloupeError("A build needs 2 or more training examples.")
    task = task_for(study, model, seed)
    trained = has_recipe(study, algorithm)
    notes += check_model(task, model, batch, trained, spec.label_smoothing)
    if spec.weights and task.doubts is not None:
        notes += task.doubts(model, batch)
    return notes
