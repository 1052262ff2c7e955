"""The models of an algorithm: fresh, as training starts from them, and trained."""

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
