"""Dataloupe: see every prediction through the data it was trained on.

    from engine import Study

    study = Study.open("my-study")
    study.build()
    for influence in study.explain("test-17", k=5).supporting:
        print(influence.id, influence.label, influence.score)

Importing this package does not import torch.
"""

from engine.api import Study
from engine.attribution.evaluation.counterfactual import Counterfactual
from engine.store.errors import (
    CheckpointError,
    DataError,
    DataloupeError,
    ImportingError,
    InterruptedBuild,
    SpecError,
    StaleError,
    StoreError,
    UploadError,
)
from engine.store.records import Badge, Dataset, ExampleOutput, Explanation, Influence, Progress

__version__ = "0.1.0"

__all__ = [
    "Badge",
    "CheckpointError",
    "Counterfactual",
    "DataError",
    "DataloupeError",
    "Dataset",
    "ExampleOutput",
    "Explanation",
    "ImportingError",
    "Influence",
    "InterruptedBuild",
    "Progress",
    "SpecError",
    "StaleError",
    "StoreError",
    "Study",
    "UploadError",
]
