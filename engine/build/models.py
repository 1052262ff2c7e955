"""Create an algorithm's models: untrained, with their initial weights, or from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.models.hf_folder import (
    DIFFUSERS,
    find_folder,
    folder_of,
    name_of,
    preprocessing_of,
)
from engine.store import layout
from engine.store.errors import SpecError
from engine.store.spec import AlgorithmSpec
from engine.study.models import only_file, start_of, user_file
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    import torch


_SIMILAR = 0.02
"""Differences of a mean or standard deviation of pixels in 0…1 that make no difference."""


def untrained_model(study: StudyReader, spec: AlgorithmSpec, seed: int) -> torch.nn.Module:
    """Return a model of the algorithm's architecture with seeded random weights."""
    from engine.models import build_model
    from engine.models.parts import freeze

    dataset = study.dataset
    model = build_model(
        spec.architecture,
        spec.architecture_options,
        dataset.encoding,
        dataset.width,
        seed,
        study.root,
    )
    freeze(model, spec.train)
    return model


def initial_model(study: StudyReader, spec: AlgorithmSpec, seed: int) -> torch.nn.Module:
    """Return a model as training starts: with the user's initial weights, or seeded random ones."""
    model = untrained_model(study, spec, seed)
    load_initial_weights(study, spec, model)
    return model


def load_initial_weights(
    study: StudyReader, spec: AlgorithmSpec, model: torch.nn.Module
) -> list[str]:
    """Fill a seeded model with the weights that training starts from, if there are any.

    Parameters that `reset` names keep their seeded values.

    Returns:
        What the user should know about it, as sentences.
    """
    from engine.training.weights import load_weights

    start = start_of(study, spec)
    if start is None:
        return []
    if name_of(spec.architecture) is not None and start.is_dir():
        from engine.training.pretrained import start_from_folder

        return start_from_folder(start, model, study.dataset.classes, spec.reset)
    if name_of(spec.architecture, DIFFUSERS) is not None and start.is_dir():
        from engine.training.pretrained_unets import start_from_unet

        return start_from_unet(start, model, spec.reset)
    return load_weights(only_file(start), model, spec.reset)


def folder_notes(study: StudyReader, spec: AlgorithmSpec) -> list[str]:
    """What the user should know of the folder of an architecture, beside its weights.

    Raises:
        SpecError: Its tokenizer is not the one of the study's texts.
    """
    from engine.tasks.tokenizers import check_tokenizer

    named, encoding = folder_of(spec.architecture), study.dataset.encoding
    if named is None:
        return []
    library, name = named
    try:
        folder = find_folder(name, study.root, library)
    except SpecError:
        if spec.weights:  # the config in the study is enough
            return []
        raise
    if "tokenizer" in encoding:
        check_tokenizer(folder, encoding, "that of its texts")
    notes = picture_notes(folder, encoding) if "shape" in encoding else []
    if not spec.weights and start_of(study, spec) is None:
        notes.append(f"Training starts from random weights, not from any in {folder}.")
    return notes


def picture_notes(folder: Path, encoding: dict[str, Any]) -> list[str]:
    """Whether a model of pictures was trained with another normalization than the study's."""
    given = preprocessing_of(folder)
    if given is None:
        return []
    for key in ("mean", "std"):
        wanted, found = given[key], encoding[key]
        if len(wanted) == len(found) and any(
            abs(a - b) > _SIMILAR for a, b in zip(wanted, found, strict=True)
        ):
            return [
                f"{folder} was trained on pictures with mean = {given['mean']} and std = "
                f"{given['std']}, and this study has {encoding['mean']} and {encoding['std']}: "
                "set both under [task]."
            ]
    return []


def load_own_weights(
    study: StudyReader, spec: AlgorithmSpec, name: str, model: torch.nn.Module
) -> list[str]:
    """Fill a model with one of the user's own trained checkpoints; returns what they should know.

    Raises:
        CheckpointError: It does not fit, or cannot be read.
    """
    from engine.training.weights import load_weights

    path = user_file(study, name)
    if name_of(spec.architecture) is not None and path.is_dir():
        from engine.training.pretrained import load_trained_folder

        return load_trained_folder(path, model, study.dataset.classes)
    if name_of(spec.architecture, DIFFUSERS) is not None and path.is_dir():
        from engine.training.pretrained_unets import load_trained_unet

        return load_trained_unet(path, model, study.dataset.encoding["conditions"])
    return load_weights(only_file(path), model)


def load_checkpoint(
    study: StudyReader, algorithm: str, checkpoint: int, device: str
) -> torch.nn.Module:
    """Load a trained checkpoint of the study, in eval mode on `device`."""
    from engine.training.weights import load_weights

    model = untrained_model(study, study.algorithms[algorithm], seed=0)
    load_weights(layout.checkpoint_file(study.root, algorithm, checkpoint), model)
    return model.to(device).eval()


def versions() -> dict[str, str]:
    """Return the versions of the libraries that affect a result's bytes."""
    import torch

    import engine

    return {"dataloupe": engine.__version__, "torch": torch.__version__, "numpy": np.__version__}
