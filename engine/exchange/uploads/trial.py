"""Try uploaded checkpoints: which architecture, strict load, all finite, one forward pass.

These functions run in a worker process with bounds on memory and time
(`engine.running.kept_worker`), which
may write no file.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.exchange.uploads.header import read_header
from engine.exchange.uploads.match import Architecture, match
from engine.store.errors import CheckpointError, UploadError
from engine.study.examples import read_stacked_arrays
from engine.study.reader import StudyReader
from engine.tasks import load_task

if TYPE_CHECKING:
    import torch

EXAMPLES = 8
"""Test examples of the one forward pass."""


@dataclass(frozen=True)
class Trial:
    """Files to try as one ensemble.

    Attributes:
        root: The study's folder.
        files: (where it lies, what its owner calls it) of each.
        asked: The architecture that the user named; None: recognise it.
    """

    root: Path
    files: tuple[tuple[Path, str], ...]
    asked: str | None = None


def try_out(trial: Trial) -> Architecture:
    """The architecture that all files are of, once each was loaded and run.

    Raises:
        UploadError: A file is hostile, does not fit, or gives no numbers; or they are of several
            architectures.
    """
    write_no_file()
    study = StudyReader.open(trial.root)
    found: list[tuple[str, Architecture]] = []
    for path, name in trial.files:
        limit = study.spec.uploads.max_mib * 2**20
        entries = read_header(path, name, limit)
        architecture = match(entries, name, study.dataset, study.spec.algorithms, trial.asked)
        found.append((name, architecture))
        first_name, first = found[0]
        if architecture != first:
            raise UploadError(
                f"{first_name} is {first}, and {name} is {architecture}. The checkpoints of one "
                "upload are of one architecture; upload them apart."
            )
        model = load(study, path, name, architecture)
        _check_outputs(study, model, name)
    return found[0][1]


def load(study: StudyReader, path: Path, name: str, architecture: Architecture) -> torch.nn.Module:
    """An uploaded checkpoint as a model in eval mode.

    Raises:
        UploadError: It does not load, is not finite, or all of it is zero.
    """
    from engine.models import build_model
    from engine.training.weights import load_weights

    encoding, n_classes = study.dataset.encoding, len(study.dataset.classes)
    model = build_model(architecture.name, architecture.options, encoding, n_classes, seed=0)
    try:
        load_weights(path, model)
    except CheckpointError as error:
        raise UploadError(str(error).replace(str(path), name)) from error
    if not any(bool(parameter.any()) for parameter in model.parameters()):
        raise UploadError(f"{name}: every weight is 0; it was never trained, or not saved whole.")
    return model.eval()


def write_no_file() -> None:
    """From here on this process can make no file longer. What it says goes over its socket."""
    import torch  # noqa: F401 - what it imports looks for a folder that it can write to

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def logits_of(study: StudyReader, model: torch.nn.Module, rows: slice) -> np.ndarray:
    """Logits of some test examples, float32 `[rows, n_classes]`."""
    from engine.training.outputs import evaluate

    task, arrays = load_task(study.dataset.task), read_stacked_arrays(study, "test")
    some = {name: np.asarray(array[rows]) for name, array in arrays.items()}
    return evaluate(task, model, some, study.dataset.encoding, 512, "cpu")["logits"]


def _check_outputs(study: StudyReader, model: torch.nn.Module, name: str) -> None:
    logits = logits_of(study, model, slice(0, min(EXAMPLES, study.dataset.n_test)))
    if not np.isfinite(logits).all():
        raise UploadError(
            f"{name} gives NaN or infinite outputs on this study's examples; its weights are too "
            "large, or it was trained on inputs of another kind."
        )
