"""Split scores over the tokens of a training text and over those of the test text.

    found = token_shares(study, "a", test_row=3, training_rows=[10, 52])
    found.train[0]          # shares of the tokens of training row 10, one for each position
    found.train_whole[0]    # what belongs to no position: train[0].sum() + train_whole[0] = score
    found.test[0]           # the same score, split over the tokens of the test text
    found.scores[0]         # the score that both sum to

A score is linear in the gradient of the training example, and equally in that of the test example.
Each gradient is a sum over the positions of its text (`engine.attribution.trak.position_shares`),
so the split is exact. It needs what live queries need (`engine.applications.live`) and torch;
importing this module does not import torch.

Positions are those of the model's input, special tokens included: position t belongs to
`input_ids[t]` of the example's encoded arrays. Padding has share 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.study.reader import StudyReader


@dataclass(frozen=True)
class TokenShares:
    """Scores of k training rows for one test example, split over tokens on both sides.

    Attributes:
        training_rows: The k training rows.
        scores: `[k]` what each row's shares sum to: the score by the checkpoints that are kept for
            live queries. It is the stored score if all checkpoints are kept.
        checkpoints: Number of those checkpoints.
        train: k arrays `[positions]`: shares of the tokens of each training text.
        train_whole: `[k]` the share that belongs to no single position ("whole text").
        test: k arrays `[positions]`: shares of the tokens of the test text, for each training row.
        test_whole: `[k]` the share that belongs to no single position.
    """

    training_rows: np.ndarray
    scores: np.ndarray
    checkpoints: int
    train: list[np.ndarray]
    train_whole: np.ndarray
    test: list[np.ndarray]
    test_whole: np.ndarray


def token_shares(
    study: StudyReader, algorithm: str, test_row: int, training_rows: Sequence[int]
) -> TokenShares:
    """Split the scores of some training rows for a test example over tokens, on both sides.

    Raises:
        DataloupeError: The study keeps nothing for live queries, or its examples have no tokens.
    """
    raise NotImplementedError


def token_shares_of(
    study: StudyReader,
    algorithm: str,
    arrays: dict[str, np.ndarray],
    training_rows: Sequence[int],
) -> TokenShares:
    """The same for an example from outside: its arrays, one row, as `live.read_example` gives
    them, with the class that is attributed in `label`. Raises as `token_shares`."""
    raise NotImplementedError
