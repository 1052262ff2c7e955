"""Check every algorithm's model before anything is trained. See `engine.training.checking`."""

from __future__ import annotations

from engine.build.batches import batches_of
from engine.build.models import load_initial_weights, untrained_model
from engine.build.retraining import has_recipe
from engine.build.run import Run
from engine.build.tasks import task_for
from engine.store import layout
from engine.store.errors import CheckpointError, DataloupeError, SpecError
from engine.store.layout import SPLITS
from engine.store.records import Progress
from engine.study.models import checkpoint_seed, user_file
from engine.study.reader import StudyReader

_EXAMPLES = 8


def check_models(run: Run) -> None:
    """Check the model of each algorithm that has checkpoints to make, and report what it found.

    Raises:
        SpecError: A model cannot be trained or attributed; the message begins with the algorithm.
        CheckpointError: The user's weights do not fit, or as in `check_model`.
    """
    for algorithm in run.study.spec.algorithms:
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
    from engine.training.weights import check_weights, load_weights

    spec = study.spec.algorithms[algorithm]
    seed = checkpoint_seed(study, 0)
    notes: list[str] = []
    if spec.weights:
        model = untrained_model(study, spec, seed)
        files = [user_file(study, path) for path in spec.weights]
        for file in files[1:]:
            check_weights(file, model)
        notes += load_weights(files[0], model)
    else:
        model = untrained_model(study, spec, seed)
        notes += load_initial_weights(study, spec, model)
    batch = next(batches_of(study, "train", "cpu", _EXAMPLES)())
    if len(next(iter(batch.values()))) < 2:
        raise DataloupeError("A build needs 2 or more training examples.")
    task = task_for(study, model, seed)
    trained = has_recipe(study, algorithm)
    return notes + check_model(task, model, batch, trained)
