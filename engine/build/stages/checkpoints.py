"""Train the checkpoints, or copy the user's, and record their outputs on every example.

Weights go to `checkpoints/`. Logits, model outputs, out-to-loss gradients and embeddings of both
splits go to `outputs/`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine import store
from engine.build.models import (
    initial_model,
    load_checkpoint,
    load_own_weights,
    untrained_model,
    versions,
)
from engine.build.run import Run
from engine.build.tasks import new_context, task_at, task_of
from engine.models.hf_folder import (
    config_digest,
    find_folder,
    folder_of,
    read_config,
    weight_files,
    weights_digest,
)
from engine.store import layout
from engine.store.cache import FileCache
from engine.store.errors import CheckpointError, SpecError
from engine.store.layout import SPLITS, Split
from engine.store.spec import AlgorithmSpec
from engine.study.examples import read_stacked_arrays
from engine.study.left_out import left_out, trained_on
from engine.study.models import checkpoint_seed, start_of, user_file
from engine.study.reader import StudyReader
from engine.tasks import computed

CODE = 1
"""Increment when the same spec would train other models."""
OUTPUTS_CODE = 2
"""Increment when the same models would give other outputs."""


@dataclass(frozen=True)
class Job:
    """Make and evaluate one checkpoint."""

    root: Path
    algorithm: str
    checkpoint: int
    device: str


def run(run: Run, algorithm: str) -> None:
    """Make missing checkpoints and their outputs."""
    study = run.study
    total = study.checkpoints(algorithm)
    jobs = []
    for checkpoint in range(total):
        weights = checkpoint_fingerprint(study, algorithm, checkpoint)
        outputs = outputs_fingerprint(study, algorithm, checkpoint)
        files = {layout.checkpoint_file(study.root, algorithm, checkpoint): weights}
        files |= {
            layout.outputs_file(study.root, algorithm, checkpoint, s): outputs for s in SPLITS
        }
        # Check every file, so that a stale one is refused even if another is missing.
        exists = [store.is_there(path, fingerprint) for path, fingerprint in files.items()]
        if not all(exists):
            jobs.append(Job(study.root, algorithm, checkpoint, run.device))
    if jobs:
        _keep_architecture(study, algorithm)
    if jobs and len(study.algorithms[algorithm].weights) > 1:
        check_distinct(study, algorithm)
    run.run_remaining("checkpoints", algorithm, make_checkpoint, jobs, total)


def recipe_fingerprint(study: StudyReader, algorithm: str) -> str:
    """Fingerprint of a learning algorithm on the study's data, common to all its models."""
    spec = study.algorithms[algorithm]
    return store.fingerprint_of(
        "recipe",
        CODE,
        study.dataset.fingerprint,
        _recipe(spec),
        start_digest(study, algorithm),
        *_architecture(study, algorithm),
        *_left_out(study, algorithm),
    )


def checkpoint_fingerprint(study: StudyReader, algorithm: str, checkpoint: int) -> str:
    """Fingerprint of one checkpoint: data, recipe and seed, or the user's own file."""
    spec = study.algorithms[algorithm]
    own = [spec.architecture, spec.architecture_options]
    if spec.train != "all":
        own.append(spec.train)
    return store.fingerprint_of(
        "checkpoint",
        CODE,
        study.dataset.fingerprint,
        own if spec.weights else _recipe(spec),
        checkpoint_seed(study, checkpoint),
        _digest(user_file(study, spec.weights[checkpoint]))
        if spec.weights
        else start_digest(study, algorithm),
        *_architecture(study, algorithm),
        *_left_out(study, algorithm),
    )


_NEW_KEYS = (
    "reset",
    "decay",
    "gradient_clipping",
    "micro_batch_size",
    "averaging",
    "train",
    "without",
)
"""Keys that are younger than the studies of some people: they count only if they are set."""


def _recipe(spec: AlgorithmSpec) -> dict[str, Any]:
    """The spec without what the weights' own digests say."""
    default = AlgorithmSpec()
    unset = {key for key in _NEW_KEYS if getattr(spec, key) == getattr(default, key)}
    return spec.model_dump(exclude={"checkpoints", "weights", "initial_weights"} | unset)


def _left_out(study: StudyReader, algorithm: str) -> list[list[int]]:
    """The rows that are not trained on, which depend on columns of the data."""
    rows = left_out(study, algorithm)
    return [rows.tolist()] if len(rows) else []


def _architecture(study: StudyReader, algorithm: str) -> list[str]:
    """What an architecture's name does not say: the config of a model's folder."""
    named = folder_of(study.algorithms[algorithm].architecture)
    if named is None:
        return []
    library, name = named
    try:
        return [config_digest(read_config(find_folder(name, study.root, library), library))]
    except SpecError:
        known = _known(study, name)
        if known is None:
            raise
        return [config_digest(known["config"])]


def start_digest(study: StudyReader, algorithm: str) -> str | None:
    """Digest of what training starts from; None for random weights."""
    spec = study.algorithms[algorithm]
    try:
        start = start_of(study, spec)
    except SpecError:
        named = folder_of(spec.architecture)
        known = None if named is None else _known(study, named[1])
        if known is None:
            raise
        digest: str | None = known["start"]
        return digest
    return None if start is None else _digest(start)


def _known(study: StudyReader, name: str) -> dict[str, Any] | None:
    """What the study keeps of an architecture's folder, which may not be there any more."""
    for path in layout.architecture_files(study.root):
        found = store.read_json(path)
        if found["name"] == name:
            return found
    return None


def _keep_architecture(study: StudyReader, algorithm: str) -> None:
    """Write what is needed of a model's folder where the study is moved without it."""
    named = folder_of(study.algorithms[algorithm].architecture)
    path = layout.architecture_file(study.root, algorithm)
    if named is None or path.exists():
        return
    library, name = named
    known = _known(study, name)
    if known is None:
        config = read_config(find_folder(name, study.root, library), library)
    else:
        config = known["config"]
    content = {"name": name, "config": config, "start": start_digest(study, algorithm)}
    store.write_json(path, content, store.fingerprint_of("architecture", json.dumps(content)))


_DIGESTS: FileCache[str] = FileCache(most=1024)


def _digest(path: Path) -> str:
    if path.is_dir():
        return weights_digest(path)
    if not path.is_file():
        raise SpecError(
            f"{path} does not exist, but study.toml lists it as weights. Correct the path, or put "
            "the file there."
        )
    return _DIGESTS.get(path, lambda: store.file_digest(path))


def check_distinct(study: StudyReader, algorithm: str) -> None:
    """Check that no two of the user's own checkpoints hold the same weights.

    Copies agree exactly, so whatever is estimated from differences of checkpoints would be wrong.

    Raises:
        SpecError: Two are copies of each other.
    """
    from engine.training.copies import copies_among, tensors_digest

    names = study.algorithms[algorithm].weights
    files = [user_file(study, name) for name in names]
    parts = [weight_files(file) if file.is_dir() else [file] for file in files]
    copies = copies_among([tensors_digest(*some) for some in parts])
    for number, first in copies.items():
        raise SpecError(
            f"algorithms.{algorithm}.weights: {names[number]} holds the same weights as "
            f"{names[first]}. List each checkpoint once."
        )


def _check_finite(
    study: StudyReader, job: Job, split: Split, outputs: dict[str, np.ndarray]
) -> None:
    """Raise CheckpointError if a model gives NaN or infinity for some example."""
    from engine.training.finite import count_text, not_finite

    if not (bad := not_finite(outputs)).any():
        return
    upload = study.uploads.get(job.algorithm)
    who = f"Checkpoint {job.checkpoint} of {job.algorithm}"
    if upload is not None:
        who = upload.files[job.checkpoint].name
    kind = "training" if split == "train" else "test"
    count = count_text(bad, study.table(split)["id"].tolist(), kind)
    raise CheckpointError(
        f"{who} gives NaN or infinite outputs for {count}: its weights are too large there. "
        "Attributions need finite outputs for every example."
    )


def outputs_fingerprint(study: StudyReader, algorithm: str, checkpoint: int) -> str:
    """Fingerprint of one checkpoint's outputs."""
    return store.fingerprint_of(
        "outputs",
        OUTPUTS_CODE,
        checkpoint_fingerprint(study, algorithm, checkpoint),
        *computed(study.spec.task.name, study.dataset.encoding),
    )


def make_checkpoint(job: Job) -> None:
    """Worker: train or load one model, store its weights, then record its outputs."""
    from engine.training.outputs import evaluate
    from engine.training.trainer import train
    from engine.training.weights import save_weights

    study = StudyReader.open(job.root)
    spec = study.algorithms[job.algorithm]
    task, encoding = task_of(study), study.dataset.encoding
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
        load_own_weights(study, spec, spec.weights[job.checkpoint], model)
        save_weights(path, model, fingerprint, {**metadata, "source": source.name})
    else:
        model = initial_model(study, spec, seed)
        some = trained_on(study, job.algorithm)
        model = train(task, model, arrays["train"], encoding, spec, seed, job.device, some)
        save_weights(path, model, fingerprint, metadata)
    model = model.to(job.device).eval()
    if context := new_context(study, task, model, seed):
        where = layout.context_file(study.root, job.algorithm, job.checkpoint)
        store.write_tensors(where, context, fingerprint)
    task = task_at(study, job.algorithm, job.checkpoint)
    for split in SPLITS:
        outputs = evaluate(task, model, arrays[split], encoding, 512, job.device)
        _check_finite(study, job, split, outputs)
        if split == "train":
            outputs["out_to_loss"][left_out(study, job.algorithm)] = 0
        store.write_tensors(
            layout.outputs_file(study.root, job.algorithm, job.checkpoint, split),
            outputs,
            outputs_fingerprint(study, job.algorithm, job.checkpoint),
            {"device": job.device, **versions()},
        )
