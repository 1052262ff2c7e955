"""The displayed title of each build stage."""

from __future__ import annotations

TITLES = {
    "data": "Read and check the data",
    "import": "Import",
    "checkpoints": "Train checkpoints",
    "predictions": "Predict",
    "neighbours": "Find similar training data",
    "trak": "Attribute predictions to training data",
    "search": "Rank and index",
    "live": "Prepare live queries",
    "bank": "Train on random subsets",
    "tuning": "Choose settings on validation runs",
    "datamodels": "Fit datamodels",
    "removals": "Train without chosen examples",
    "quality": "Measure quality on test runs",
    "map": "Draw maps",
}
