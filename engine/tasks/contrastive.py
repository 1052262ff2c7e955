"""The contrastive loss of pairs, their outputs, and what is kept of them.

A pair is a picture and its caption. Of a model's embeddings, of length 1, the similarity of a
picture and a caption is the cosine; the softmax of scaled similarities says which caption belongs
to a picture, and which picture to a caption.

Two pictures may have the same caption, and two captions the same picture. Neither pair is a wrong
answer for the other in either direction, so it never counts as a negative: `picture_key` and
`caption_key` tell them.

Outputs compare a pair with *negatives*, pairs drawn once for each model uniformly from the training
pairs. Their embeddings are constants of the output: its gradient runs through the pair itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from engine.models.calling import CONTEXT, WEIGHTS, call
from engine.models.pairs import Pairs, pairs_of
from engine.store.errors import DataError, SpecError
from engine.store.records import View
from engine.tasks import ModelOutput, Retrieval, plain_choice
from engine.tasks.outcomes import ABSENT, RETRIEVAL

if TYPE_CHECKING:
    from engine.attribution.trak.plan import Batch

PICTURE_KEY, CAPTION_KEY = "picture_key", "caption_key"
"""Arrays with a number for each picture and each caption: equal ones have equal numbers."""
_KEYS = (PICTURE_KEY, CAPTION_KEY)
_OWN_KEY = {name: f"{CONTEXT}own_{name}" for name in _KEYS}
"""Their names in a prepared batch, where they are no inputs of the model."""
_AT_ONCE = 256
_SIMILARITY = "similarity"

Prepare = Callable[["Batch", dict[str, Any]], "Batch"]


def with_keys(batch: Batch) -> Batch:
    """The batch with its keys under names that no model takes for inputs."""
    return {_OWN_KEY.get(name, name): tensor for name, tensor in batch.items()}


def pairs(model: torch.nn.Module, batch: Batch) -> Pairs:
    """The embeddings of a prepared batch."""
    return pairs_of(call(model, batch))


# --- the loss -------------------------------------------------------------------------------------


def loss(model: torch.nn.Module, batch: Batch, label_smoothing: float) -> torch.Tensor:
    """Contrastive losses `[batch]`: the mean of both directions' cross entropies in the batch."""
    if label_smoothing:
        raise SpecError(
            f"label_smoothing = {label_smoothing:g}: the contrastive loss has no labels to smooth. "
            "Remove the key."
        )
    found = pairs(model, batch)
    logits = found.scale * (found.pictures @ found.captions.T)
    answers = torch.arange(len(logits), device=logits.device)
    same = _same(batch, {key: batch[own] for key, own in _OWN_KEY.items()}).fill_diagonal_(False)
    total = torch.zeros((), device=logits.device, dtype=logits.dtype)
    for scaled in (logits, logits.T):
        if WEIGHTS in batch:
            scaled = scaled + _as_often(batch[WEIGHTS].to(logits))
        masked = scaled.masked_fill(same, -torch.inf)
        total = total + functional.cross_entropy(masked, answers, reduction="none")
    return total / 2


def _same(batch: Batch, keys: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Which of other pairs have the picture or the caption of a pair, bool `[batch, others]`."""
    same = [batch[own][:, None] == keys[key] for key, own in _OWN_KEY.items()]
    return torch.stack(same).any(0)


def _as_often(weights: torch.Tensor) -> torch.Tensor:
    """What is added to logits so that a pair of weight w counts as w negatives of every other."""
    own = torch.eye(len(weights), dtype=torch.bool, device=weights.device)
    return weights.log().expand(len(weights), -1).masked_fill(own, 0.0)


# --- the outputs ----------------------------------------------------------------------------------


def picture_side(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Log-odds `[batch]` of the own caption against the negatives' captions, for the picture."""
    return _picture_side(pairs(model, batch), batch)


def caption_side(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Log-odds `[batch]` of the own picture against the negatives' pictures, for the caption."""
    return _caption_side(pairs(model, batch), batch)


def alignment(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The sum of both sides, `[batch]`."""
    found = pairs(model, batch)
    return _picture_side(found, batch) + _caption_side(found, batch)


def _picture_side(found: Pairs, batch: Batch) -> torch.Tensor:
    return _log_odds(found, found.pictures, batch["context_captions"], batch)


def _caption_side(found: Pairs, batch: Batch) -> torch.Tensor:
    return _log_odds(found, found.captions, batch["context_pictures"], batch)


def _log_odds(found: Pairs, side: torch.Tensor, others: torch.Tensor, batch: Batch) -> torch.Tensor:
    """−log Σ exp(s (⟨x, other⟩ − ⟨x, own⟩)) over the negatives that are not the same."""
    own = (found.pictures * found.captions).sum(-1, keepdim=True)
    behind = found.scale * (side @ others.to(side).T - own)
    same = _same(batch, {key: batch[f"{CONTEXT}{key}"] for key in _KEYS})
    return -behind.masked_fill(same, -torch.inf).logsumexp(-1)


def _weight(
    *sides: Callable[[Pairs, Batch], torch.Tensor],
) -> Callable[[torch.nn.Module, Batch], torch.Tensor]:
    """Q = 1 − p, the mean over the sides, where p is the probability of the right answer."""

    def weight(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        found = pairs(model, batch)
        return torch.stack([torch.sigmoid(-side(found, batch)) for side in sides]).mean(0)

    return weight


ALIGNMENT = ModelOutput(
    "alignment",
    "how well picture and caption fit",
    alignment,
    _weight(_picture_side, _caption_side),
)
PICTURE_SIDE = ModelOutput(
    "picture-side",
    "how much the picture speaks for its caption",
    picture_side,
    _weight(_picture_side),
)
CAPTION_SIDE = ModelOutput(
    "caption-side",
    "how much the caption speaks for its picture",
    caption_side,
    _weight(_caption_side),
)
OUTPUTS = (ALIGNMENT, PICTURE_SIDE, CAPTION_SIDE)
CHOICES = tuple(
    replace(plain_choice(output.name, output.title), part=part)
    for output, part in ((PICTURE_SIDE, "the picture"), (CAPTION_SIDE, "the caption"))
)
"""The alignment is the sum of its sides."""


# --- negatives, and the pairs that retrieval chooses from -----------------------------------------


def draw_negatives(n: int, count: int, seed: int) -> np.ndarray:
    """Row numbers of `count` of n training pairs, ascending, or of all: each is equally likely."""
    rows = np.random.default_rng(seed).choice(n, min(n, count), replace=False)
    return np.sort(rows)


def negatives(prepare: Prepare) -> Callable[..., dict[str, np.ndarray]]:
    """The context of a model (`Task.context`): embeddings and keys of its negatives, and their
    `negative_rows`."""

    def context(
        model: torch.nn.Module,
        arrays: Mapping[str, np.ndarray],
        encoding: dict[str, Any],
        seed: int,
    ) -> dict[str, np.ndarray]:
        rows = draw_negatives(len(arrays[CAPTION_KEY]), encoding["negatives"], seed)
        found = _embedded(model, arrays, encoding, rows, prepare)
        for key in _KEYS:
            if len(np.unique(found[key])) < 2:
                raise DataError(
                    f"All {len(rows):,} negatives have the same {key.partition('_')[0]}. Raise "
                    "`negatives` under [task], or add other pairs."
                )
        return {**found, "negative_rows": rows}

    return context


def gallery(prepare: Prepare) -> Callable[..., dict[str, np.ndarray]]:
    """The pairs that retrieval chooses from (`Task.gallery`): the first test pairs."""

    def of_test_pairs(
        model: torch.nn.Module, arrays: Mapping[str, np.ndarray], encoding: dict[str, Any]
    ) -> dict[str, np.ndarray]:
        rows = np.arange(min(len(arrays[CAPTION_KEY]), encoding["gallery"]))
        found = _embedded(model, arrays, encoding, rows, prepare)
        return {f"gallery_{name}": array for name, array in found.items()}

    return of_test_pairs


@torch.no_grad()
def _embedded(
    model: torch.nn.Module,
    arrays: Mapping[str, np.ndarray],
    encoding: dict[str, Any],
    rows: np.ndarray,
    prepare: Prepare,
) -> dict[str, np.ndarray]:
    device = next(model.parameters()).device

    def batches() -> Iterator[Pairs]:
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            raw = {name: torch.from_numpy(np.array(array[some])) for name, array in arrays.items()}
            yield pairs(model, prepare({name: t.to(device) for name, t in raw.items()}, encoding))

    found = list(batches())
    return {
        "pictures": torch.cat([part.pictures for part in found]).float().cpu().numpy(),
        "captions": torch.cat([part.captions for part in found]).float().cpu().numpy(),
        **{key: np.array(arrays[key][rows]) for key in _KEYS},
    }


# --- what is kept ---------------------------------------------------------------------------------


def record(model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """What is kept of each pair.

    `retrieval` `[batch, 2, 1 + gallery]`: cosines of the picture with its own caption, then with
    the captions of the gallery; the same for the caption and the pictures. Pairs of the gallery
    with the same picture or caption are `ABSENT` there: the own one comes first, and the others are
    right, too.
    `embeddings` `[batch, 2 d]`: of the picture, then of the caption. The inner product of two is
    the mean of their pictures' and their captions' cosines.
    """
    found = pairs(model, batch)
    own = (found.pictures * found.captions).sum(-1, keepdim=True)
    same = _same(batch, {key: batch[f"{CONTEXT}gallery_{key}"] for key in _KEYS})
    sides = []
    for side, others in ((found.pictures, "captions"), (found.captions, "pictures")):
        similar = side @ batch[f"{CONTEXT}gallery_{others}"].to(side).T
        sides.append(torch.cat([own, similar.masked_fill(same, ABSENT)], 1))
    both = torch.cat([found.pictures, found.captions], 1) / 2**0.5
    return {RETRIEVAL.record: torch.stack(sides, 1), "embeddings": both}


_UNLIKE = -1
"""A key that no picture and no caption has."""


def unlike(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pairs that share nothing with the gallery: all of it is there to be retrieved."""
    return {**arrays, **{key: np.full_like(arrays[key], _UNLIKE) for key in _KEYS}}


def fits(records: Mapping[str, np.ndarray], part: View) -> np.ndarray:
    """Cosines `[gallery]` of a picture with the captions of the gallery (`part`: `text`), or of a
    caption with the pictures (`picture`), from the record of one pair that is `unlike`."""
    found: np.ndarray = records[RETRIEVAL.record][0, int(part == "picture"), 1:]
    return found.astype(np.float64)


RETRIEVED = Retrieval(unlike, fits, {"text": PICTURE_SIDE.name, "picture": CAPTION_SIDE.name})
"""A picture finds a caption among the test pairs, and a caption a picture."""


def summarize(
    records: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """Columns of the table of predictions, from the mean cosines.

    `predicted`: its own pair, or what was retrieved instead; `correct`: picture and caption find
    each other; `similarity`; `caption_rank` and `picture_rank` among the gallery, from 1.
    """
    retrieval = np.asarray(records[RETRIEVAL.record], np.float64)
    own, others = retrieval[..., :1], retrieval[..., 1:]
    ranks = 1 + (others > own).sum(axis=-1)
    answers = RETRIEVAL.answers(retrieval)
    return {
        "predicted": np.array(RETRIEVAL.names(answers, classes), object),
        "correct": answers == 0,
        _SIMILARITY: own[:, 0, 0].astype(np.float32),
        "caption_rank": ranks[:, 0].astype(np.int32),
        "picture_rank": ranks[:, 1].astype(np.int32),
    }
