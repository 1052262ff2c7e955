"""Train the checkpoints (or take in the user's own) and record what each says of every example."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import store
from engine.build.run import Run
from engine.store import layout
from engine.store.cache import FileCache
from engine.store.errors import SpecError
from engine.store.layout import SPLITS
from engine.store.spec import AlgorithmSpec
from engine.study.examples import read_stacked_arrays
from engine.study.models import checkpoint_seed, user_file
from engine.study.reader import StudyReader
from engine.tasks import load_task

if TYPE_CHECKING:
    import torch

CODE = 1
"""Raised whenever the same spec would train other models or record other outputs."""


@dataclass(frozen=True)
class Job:
    """One checkpoint to make and evaluate."""

    root: Path
    algorithm: str
    checkpoint: int
    device: str


def run(run: Run, algorithm: str) -> None:
    """Make every missing checkpoint and its outputs."""
    study = run.study
    total = study.checkpoints(algorithm)
    jobs = []
    for checkpoint in range(total):
        weights_are = checkpoint_fingerprint(study, algorithm, checkpoint)
        outputs_are = outputs_fingerprint(study, algorithm, checkpoint)
        files = {layout.checkpoint_file(study.root, algorithm, checkpoint): weights_are}
        files |= {
            layout.outputs_file(study.root, algorithm, checkpoint, s): outputs_are for s in SPLITS
        }
        # All are looked at, so that one of another spec is refused whatever else is missing.
        there = [store.is_there(path, fingerprint) for path, fingerprint in files.items()]
        if not all(there):
            jobs.append(Job(study.root, algorithm, checkpoint, run.device))
    run.finish("checkpoints", algorithm, make_checkpoint, jobs, total)


def recipe_fingerprint(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of a learning algorithm on the study's data: what all its models share."""
    spec = study.algorithms[algorithm]
    recipe = spec.model_dump(exclude={"checkpoints", "weights", "initial_weights"})
    start = spec.initial_weights
    digest = _digest(user_file(study, start)) if start else None
    return store.fingerprint_of("recipe", CODE, study.dataset.fingerprint, recipe, digest)


def checkpoint_fingerprint(study: StudyReader, algorithm: str, checkpoint: int) -> str:
    """Fingerprint of one checkpoint: data, recipe and seed, or the user's own file."""
    spec = study.algorithms[algorithm]
    recipe = spec.model_dump(exclude={"checkpoints", "weights", "initial_weights"})
    start = spec.weights[checkpoint] if spec.weights else spec.initial_weights
    return store.fingerprint_of(
        "checkpoint",
        CODE,
        study.dataset.fingerprint,
        recipe if not spec.weights else [spec.architecture, spec.architecture_options],
        checkpoint_seed(study, checkpoint),
        _digest(user_file(study, start)) if start else None,
    )


_DIGESTS: FileCache[str] = FileCache(most=1024)


def _digest(path: Path) -> str:
    if not path.is_file():
        raise SpecError(f"{path}, which study.toml names as weights, does not exist.")
    return _DIGESTS.get(path, lambda: store.file_digest(path))


def outputs_fingerprint(study: StudyReader, algorithm: str, checkpoint: int) -> str:
    """Fingerprint of what one checkpoint says."""
    return store.fingerprint_of(
        "outputs", CODE, checkpoint_fingerprint(study, algorithm, checkpoint)
    )


def make_checkpoint(job: Job) -> None:
    """Worker: train or load one model, keep its weights, then record its outputs."""
    from engine.training.outputs import evaluate
    from engine.training.trainer import train
    from engine.training.weights import load_weights, save_weights

    study = StudyReader.open(job.root)
    spec = study.algorithms[job.algorithm]
    task, encoding = load_task(study.dataset.task), study.dataset.encoding
    fingerprint = checkpoint_fingerprint(study, job.algorithm, job.checkpoint)
    path = layout.checkpoint_file(study.root, job.algorithm, job.checkpoint)
    seed = checkpoint_seed(study, job.checkpoint)
    metadata = {
        "architecture": spec.architecture,
        "architecture_options": spec.architecture_options,
        "seed": seed,
        "device": job.device,
        **versions(),
    }
    arrays = {split: read_stacked_arrays(study, split) for split in SPLITS}
    if path.exists():
        model = load_checkpoint(study, job.algorithm, job.checkpoint, "cpu")
    elif spec.weights:
        model = untrained_model(study, spec, seed)
        source = user_file(study, spec.weights[job.checkpoint])
        load_weights(source, model)
        save_weights(path, model, fingerprint, {**metadata, "source": source.name})
    else:
        model = initial_model(study, spec, seed)
        model = train(task, model, arrays["train"], encoding, spec, seed, job.device)
        save_weights(path, model, fingerprint, metadata)
    model = model.to(job.device).eval()
    for split in SPLITS:
        outputs = evaluate(task, model, arrays[split], encoding, 512, job.device)
        store.write_tensors(
            layout.outputs_file(study.root, job.algorithm, job.checkpoint, split),
            outputs,
            outputs_fingerprint(study, job.algorithm, job.checkpoint),
            {"device": job.device, **versions()},
        )


def untrained_model(study: StudyReader, spec: AlgorithmSpec, seed: int) -> torch.nn.Module:
    """The architecture of an algorithm, with seeded random weights."""
    from engine.models import build_model

    dataset = study.dataset
    return build_model(
        spec.architecture, spec.architecture_options, dataset.encoding, len(dataset.classes), seed
    )


def initial_model(study: StudyReader, spec: AlgorithmSpec, seed: int) -> torch.nn.Module:
    """What training starts from: the user's initial weights, or seeded random ones."""
    from engine.training.weights import load_weights

    model = untrained_model(study, spec, seed)
    if spec.initial_weights:
        load_weights(user_file(study, spec.initial_weights), model)
    return model


def load_checkpoint(
    study: StudyReader, algorithm: str, checkpoint: int, device: str
) -> torch.nn.Module:
    """A trained checkpoint of the study, in eval mode on `device`."""
    from engine.training.weights import load_weights

    model = untrained_model(study, study.algorithms[algorithm], seed=0)
    load_weights(layout.checkpoint_file(study.root, algorithm, checkpoint), model)
    return model.to(device).eval()


def versions() -> dict[str, str]:
    """Versions of the libraries that decide a result's bytes."""
    import torch

    import engine

    return {"dataloupe": engine.__version__, "torch": torch.__version__, "numpy": np.__version__}
