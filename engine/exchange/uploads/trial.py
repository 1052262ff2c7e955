"""Try out uploaded checkpoints: find their architecture, load them strictly, run a forward pass.

These functions run in a worker process with limited memory and time (`engine.running.kept_worker`),
which cannot write files.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.build.tasks import task_for
from engine.exchange.uploads.header import read_header
from engine.exchange.uploads.match import Architecture, match
from engine.store import layout
from engine.store.errors import CheckpointError, UploadError
from engine.study.examples import read_stacked_arrays
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    import torch

EXAMPLES = 8
"""Number of test examples in the forward pass."""


@dataclass(frozen=True)
class Trial:
    """Files to try out as one ensemble.

    Attributes:
        root: The study's folder.
        files: (path, the owner's name for it) of each file.
        requested: The architecture that the user chose; None: detect it.
    """

    root: Path
    files: tuple[tuple[Path, str], ...]
    requested: str | None = None


@dataclass(frozen=True)
class Tried:
    """Files that passed.

    Attributes:
        architecture: The architecture of all of them.
        digests: The digest of each file's tensors: copies have the same.
        known: The checkpoint of the study that each file equals, such as `checkpoint 1 of cnn`;
            empty for a new one.
    """

    architecture: Architecture
    digests: tuple[str, ...]
    known: tuple[str, ...] = ()


def try_out(trial: Trial) -> Tried:
    """Load and run every file.

    Raises:
        UploadError: A file is hostile, does not match, or gives outputs that are not finite; or the
            files have different architectures.
    """
    write_no_file()
    from engine.training.copies import tensors_digest

    study = StudyReader.open(trial.root)
    digests = []
    found: list[tuple[str, Architecture]] = []
    for path, name in trial.files:
        limit = study.spec.uploads.max_mib * 2**20
        entries = read_header(path, name, limit)
        architecture = match(
            entries, name, study.dataset, study.spec.algorithms, trial.requested, study.root
        )
        found.append((name, architecture))
        first_name, first = found[0]
        if architecture != first:
            raise UploadError(
                f"{first_name} is {first}, but {name} is {architecture}. All checkpoints of an "
                "upload must have the same architecture; upload these separately."
            )
        model = load(study, path, name, architecture)
        _check_outputs(study, model, name)
        digests.append(tensors_digest(path))
    own = _digests_of_study(study, trial.files[0][0])
    return Tried(found[0][1], tuple(digests), tuple(own.get(one, "") for one in digests))


def _digests_of_study(study: StudyReader, like: Path) -> dict[str, str]:
    """Digest → name of each checkpoint of the study with the shapes of this file."""
    from engine.training.copies import tensor_shapes, tensors_digest

    wanted = tensor_shapes(like)
    found: dict[str, str] = {}
    for algorithm in study.spec.algorithms:
        for number in range(study.checkpoints(algorithm)):
            path = layout.checkpoint_file(study.root, algorithm, number)
            if path.exists() and tensor_shapes(path) == wanted:
                found.setdefault(tensors_digest(path), f"checkpoint {number} of {algorithm}")
    return found


def load(study: StudyReader, path: Path, name: str, architecture: Architecture) -> torch.nn.Module:
    """Load an uploaded checkpoint as a model in eval mode.

    Raises:
        UploadError: It does not load, has weights that are not finite, or is all zeros.
    """
    from engine.models import build_model
    from engine.training.weights import load_weights

    encoding, width = study.dataset.encoding, study.dataset.width
    model = build_model(
        architecture.name, architecture.options, encoding, width, seed=0, study=study.root
    )
    try:
        load_weights(path, model)
    except CheckpointError as error:
        raise UploadError(str(error).replace(str(path), name)) from error
    if not any(bool(parameter.any()) for parameter in model.parameters()):
        raise UploadError(
            f"{name}: every weight is 0. It was not trained or not saved completely; save it again."
        )
    return model.eval()


def write_no_file() -> None:
    """Forbid this process to write to files from now on. It can still send results by socket."""
    import torch  # noqa: F401 - on import, its dependencies look for a writable folder

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def outputs_of(study: StudyReader, model: torch.nn.Module, rows: slice) -> dict[str, np.ndarray]:
    """Outputs on some test examples: see `engine.training.outputs.evaluate`."""
    from engine.training.outputs import evaluate

    task, arrays = task_for(study, model, 0), read_stacked_arrays(study, "test")
    some = {name: np.asarray(array[rows]) for name, array in arrays.items()}
    return evaluate(task, model, some, study.dataset.encoding, 512, "cpu")


def _check_outputs(study: StudyReader, model: torch.nn.Module, name: str) -> None:
    from engine.training.finite import not_finite

    if not_finite(outputs_of(study, model, slice(0, EXAMPLES))).any():
        raise UploadError(
            f"{name} gives NaN or infinite outputs on this study's examples. Its weights are too "
            "large, or it was trained on a different kind of input."
        )
