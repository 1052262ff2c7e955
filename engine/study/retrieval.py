"""How often models of pairs find what belongs together: recall at the first K."""

from __future__ import annotations

from engine.store.layout import Split
from engine.study.models import prediction_columns, read_predictions
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader

SIDES = ("caption", "picture")
TOPS = (1, 5, 10)


def has_ranks(study: StudyReader, algorithm: str) -> bool:
    """Whether predictions are ranks among the test pairs."""
    return {f"{side}_rank" for side in SIDES} <= {*prediction_columns(study, algorithm)}


def read_recall(
    study: StudyReader, split: Split = "test", algorithm: str | None = None
) -> dict[str, dict[int, float]]:
    """Recall of each side (R@1, R@5, R@10): the share of pairs whose own caption, or picture, is
    among the first K that are found."""
    table = read_predictions(study, split, resolve_algorithm(study, algorithm))
    return {side: {k: float((table[f"{side}_rank"] <= k).mean()) for k in TOPS} for side in SIDES}
