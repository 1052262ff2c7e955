"""Create an algorithm's models: untrained, with their initial weights, or from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.store import layout
from engine.store.spec import AlgorithmSpec
from engine.study.models import user_file
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    import torch


def untrained_model(study: StudyReader, spec: AlgorithmSpec, seed: int) -> torch.nn.Module:
    """Return a model of the algorithm's architecture with seeded random weights."""
    from engine.models import build_model

    dataset = study.dataset
    return build_model(
        spec.architecture,
        spec.architecture_options,
        dataset.encoding,
        dataset.width,
        seed,
        study.root,
    )


def initial_model(study: StudyReader, spec: AlgorithmSpec, seed: int) -> torch.nn.Module:
    """Return a model as training starts: with the user's initial weights, or seeded random ones."""
    model = untrained_model(study, spec, seed)
    load_initial_weights(study, spec, model)
    return model


def load_initial_weights(
    study: StudyReader, spec: AlgorithmSpec, model: torch.nn.Module
) -> list[str]:
    """Fill a seeded model with the user's initial weights, if there are any.

    Parameters that `reset` names keep their seeded values.

    Returns:
        What the user should know about it, as sentences.
    """
    from engine.training.weights import load_weights

    if not spec.initial_weights:
        return []
    return load_weights(user_file(study, spec.initial_weights), model, spec.reset)


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
