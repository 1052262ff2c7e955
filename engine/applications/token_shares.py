"""Split scores over the tokens of a training text and over those of the test text.

    found = token_shares(study, "a", test_row=3, training_rows=[10, 52])
    found.train[0]          # shares of the tokens of training row 10, one for each position
    found.train_whole[0]    # what belongs to no position: train[0].sum() + train_whole[0] = score
    found.test[0]           # the same score, split over the tokens of the test text
    found.scores[0]         # the score that both sum to

A score is linear in the gradient of the training example, and equally in that of the test example.
Each gradient is a sum over the positions of its text (`engine.attribution.trak.position_shares`),
so the split is exact. What rounding adds where features are stored in few bits belongs to no
position. It needs what live queries need (`engine.applications.live`) and torch;
importing this module does not import torch.

Positions are those of the model's input, special tokens included: position t belongs to
`input_ids[t]` of the example's encoded arrays. Padding has share 0.

Where a source has a target, the positions of the source come first, padded to the longest of the
rows, then those of the target. A decoder's position t predicts target token t; a decoder that reads
both as one text has a position for each token that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.applications.live import Kept, Loaded, Output, load, output_of
from engine.build.batches import stored_out_to_loss
from engine.store.errors import DataloupeError
from engine.study.example_outputs import read_known
from engine.study.examples import read_stacked_arrays
from engine.study.output_names import concrete, resolve_output
from engine.study.reader import StudyReader

if TYPE_CHECKING:
    from torch import Tensor

    from engine.attribution.trak.plan import Batch
    from engine.attribution.trak.position_shares import PositionShares
    from engine.attribution.trak.score_directions import ScoreDirection


SOURCE, MASK, TARGET = "input_ids", "attention_mask", "target_ids"
"""Inputs of models that have a source and a target."""


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
    study: StudyReader,
    algorithm: str,
    test_row: int,
    training_rows: Sequence[int],
    output: str | None = None,
) -> TokenShares:
    """Split the scores of some training rows for a test example over tokens, on both sides.

    Args:
        output: Name of the output that the scores are about (`engine.study.output_names`); None:
            the one whose scores are stored.

    Raises:
        DataloupeError: The study keeps nothing for live queries, its examples have no tokens, or
            there is no such output of this example.
    """
    arrays = _rows(study, "test", [test_row])
    if output is None:
        return token_shares_of(study, algorithm, arrays, training_rows)
    known = read_known(study, "test", test_row, algorithm)
    named = concrete(study, resolve_output(study, output), known.label, known.predicted)
    return token_shares_of(study, algorithm, arrays, training_rows, output_of(study, named))


def token_shares_of(
    study: StudyReader,
    algorithm: str,
    arrays: dict[str, np.ndarray],
    training_rows: Sequence[int],
    output: Output | None = None,
) -> TokenShares:
    """The same for an example from outside: its arrays, one row, as `live.read_example` gives them.

    Args:
        output: As `Loaded.scores` takes it; None: the default, of the class in `label`.

    Raises:
        DataloupeError: As `token_shares`.
    """
    from engine.training.outputs import read_batch

    loaded = load(study.root, algorithm)
    rows = np.asarray(training_rows, np.int64)
    encoding = study.dataset.encoding
    test = read_batch(loaded.task, arrays, slice(0, 1), encoding, "cpu")
    train = read_batch(
        loaded.task, _rows(study, "train", rows), slice(0, len(rows)), encoding, "cpu"
    )
    (train, more_train), (test, more_test) = told_apart(train), told_apart(test)
    places = positions_of(train), positions_of(test)
    if places[0] is None or places[1] is None:
        raise DataloupeError(
            f"The models of {study.spec.name} take no sequences of tokens, so there is nothing to "
            "split scores over."
        )
    n = len(loaded.checkpoints)
    factor = loaded.out_to_loss[rows] * _kept_by_threshold(loaded, arrays, rows, output) / n
    train_parts = np.zeros((len(rows), places[0].length + 1))
    test_parts = np.zeros((len(rows), places[1].length + 1))
    scores = np.zeros(len(rows))
    for number, kept in enumerate(loaded.checkpoints):
        weights = _weights(study, loaded, algorithm, number)
        asked = kept if output is None else _about(kept, output)
        (of_test,) = _directions(loaded, asked, weights, test)
        scores += of_test.scores[rows]
        stands = replace(kept, extractor=replace(kept.extractor, output=kept.task.trained_output))
        train_parts += _split(stands, of_test, train, places[0])
        for k, of_train in enumerate(_directions(loaded, stands, weights, train)):
            test_parts[k] += _split(asked, of_train, test, places[1])[0]
    train_parts, test_parts = (
        np.delete(parts * factor[:, None], more, axis=1)
        for parts, more in ((train_parts, more_train), (test_parts, more_test))
    )
    scores *= factor
    if loaded.solver.storage != "float32" or loaded.solver.precision != "float32":
        for parts in (train_parts, test_parts):  # features are rounded, and shares are not
            parts[:, -1] += scores - parts.sum(axis=1)
    return TokenShares(
        training_rows=rows,
        scores=scores,
        checkpoints=n,
        train=list(train_parts[:, :-1]),
        train_whole=train_parts[:, -1],
        test=list(test_parts[:, :-1]),
        test_whole=test_parts[:, -1],
    )


@dataclass(frozen=True)
class Positions:
    """The positions of the sequences that a model takes.

    Attributes:
        length: How many there are.
        starts: How many positions a layer may have → which is its first.
    """

    length: int
    starts: Mapping[int, int]


def positions_of(batch: Batch) -> Positions | None:
    """The positions of the token sequences that a batch's model takes; None if it takes none."""
    from engine.models.calling import inputs_of

    if TARGET in batch:
        source, target = batch[SOURCE].shape[1], batch[TARGET].shape[1]
        both = {source + target - 1: 0, target: source, source: 0}
        return Positions(source + target, both)
    for tensor in inputs_of(batch).values():
        if tensor.ndim == 2 and not tensor.is_floating_point():
            return Positions(tensor.shape[1], {tensor.shape[1]: 0})
    return None


def told_apart(batch: Batch) -> tuple[Batch, range]:
    """The batch with sources of another length than its targets, so that layers tell which of them
    they read, and the positions of the padding that this takes."""
    import torch

    if TARGET not in batch:
        return batch, range(0)
    source = width = batch[SOURCE].shape[1]
    while width in (1, batch[TARGET].shape[1]):
        width += 1
    padding = batch[SOURCE].new_zeros(len(batch[SOURCE]), width - source)
    longer = {name: torch.cat([batch[name], padding], 1) for name in (SOURCE, MASK)}
    return {**batch, **longer}, range(source, width)


def _rows(study: StudyReader, split: Any, rows: Sequence[int] | np.ndarray) -> dict[str, Any]:
    arrays = read_stacked_arrays(study, split)
    return {name: np.asarray(array[np.asarray(rows)]) for name, array in arrays.items()}


def _about(kept: Kept, output: Output) -> Kept:
    """A checkpoint whose gradients are those of another output."""
    value = kept.task.output_named(*output).value
    return replace(kept, extractor=replace(kept.extractor, output=value))


def _kept_by_threshold(
    loaded: Loaded, arrays: dict[str, np.ndarray], rows: np.ndarray, output: Output | None
) -> np.ndarray:
    """The share of each score that the soft threshold leaves; 0 where it takes all of it."""
    if not loaded.solver.soft_threshold:
        return np.ones(len(rows))
    scores = loaded.unthresholded(arrays, [output])
    left = loaded.thresholded(scores)[0, rows]
    shares: np.ndarray = np.divide(left, scores[0, rows], out=np.zeros(len(rows)), where=left != 0)
    return shares


def _weights(study: StudyReader, loaded: Loaded, algorithm: str, checkpoint: int) -> np.ndarray:
    from engine.attribution.trak.linear_system import weight_array

    return weight_array(stored_out_to_loss(study, algorithm, checkpoint), loaded.solver)


def _directions(
    loaded: Loaded, kept: Kept, weights: np.ndarray, batch: Batch
) -> list[ScoreDirection]:
    """The direction of each example of a batch at one checkpoint."""
    from engine.attribution.trak.score_directions import dual_directions, primal_directions

    features = kept.extractor.extract(batch)
    if loaded.solver.kind == "primal":
        return primal_directions(kept.inverse, kept.shards, features)
    damping = loaded.solver.damping
    return dual_directions(kept.inverse, kept.shards, features, kept.plan, weights, damping)


def _split(kept: Kept, direction: ScoreDirection, batch: Batch, places: Positions) -> np.ndarray:
    """`[b, length + 1]`: the share of each position at one checkpoint, then that of the whole."""
    import torch

    from engine.attribution.trak.position_shares import position_shares, projected_direction

    model, plan = kept.extractor.model, kept.plan
    parameters: dict[str, Tensor] = {}
    if kept.extractor.projection is not None:
        assert direction.features is not None
        vector = torch.from_numpy(direction.features)
        parameters = projected_direction(model, kept.extractor.projection, vector)
    for path, (weight, bias) in direction.outer.items():
        names = plan.layers[path]
        assert names.weight is not None
        parameters[names.weight] = torch.from_numpy(weight)
        if names.bias is not None:
            parameters[names.bias] = torch.from_numpy(bias)
    found: PositionShares = position_shares(
        model, kept.extractor.output, batch, plan, parameters, places.length, places.starts
    )
    return torch.cat([found.positions, found.whole[:, None]], 1).double().numpy()
