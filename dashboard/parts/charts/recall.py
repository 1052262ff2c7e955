"""How often pictures and captions find each other, as figures."""

from __future__ import annotations

from engine.store.quantities import ACCURACY
from engine.study.reader import StudyReader
from engine.study.retrieval import TOPS, read_recall


def recall_figures(study: StudyReader, algorithm: str) -> dict[str, tuple[str, str]]:
    """R@1, R@5 and R@10 on the test pairs: the mean of both directions, and each of them."""
    recall = read_recall(study, "test", algorithm)
    return {
        f"R@{k}": (
            ACCURACY.text(sum(of[k] for of in recall.values()) / len(recall)),
            ", ".join(f"{side}s {ACCURACY.text(of[k])}" for side, of in recall.items()),
        )
        for k in TOPS
    }
