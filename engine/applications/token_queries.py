"""Token shares as one request, so that a kept worker can answer it.

Importing this module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.applications.token_shares import TokenShares, token_shares
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class TokenQuery:
    """Which score is split over tokens.

    Attributes:
        root: The study's folder.
        test_row, training_row: The pair of examples.
        output: Name of the output that the score is about; None: the one whose scores are stored.
    """

    root: Path
    algorithm: str
    test_row: int
    training_row: int
    output: str | None = None


def answer(query: TokenQuery) -> TokenShares:
    """Worker: split the score. Raises as `token_shares`."""
    study = StudyReader.open(query.root)
    return token_shares(study, query.algorithm, query.test_row, [query.training_row], query.output)
