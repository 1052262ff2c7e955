"""The loss of source and target texts, their outputs, and what is kept of them.

With p_t the probability that a model gives to target token t behind the right ones before it, and
m_t = log (p_t / (1 − p_t)) its log-odds, of T tokens

    loss = −1/T Σ_t log p_t        log-odds f = 1/T Σ_t m_t        log-likelihood = Σ_t log p_t

The loss is no function of the mean f, so its gradient is no multiple of ∇f: ∇loss = −1/T Σ_t
(1 − p_t) ∇m_t weighs each token by how little the model is sure of it. A training example i
therefore stands with its own direction (`ModelOutput.trained`), and Q is what scales it to the
gradient of its loss, exactly:

    φ_i = Σ_t (1 − p_t) ∇m_t / Σ_t (1 − p_t)      Q_i = 1/T Σ_t (1 − p_t)      Q_i φ_i = −∇loss_i

So a score is the first-order change of the output of test example x in one damped Gauss-Newton step
on the loss of training example i, whatever the output: Q_i φ_iᵀ (ΦᵀWΦ + λI)⁻¹ ∇f(x). For targets of
a single token it is that of classification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from engine.models.answers import logits_of
from engine.models.calling import CONTEXT, LABEL, call
from engine.store.errors import DataloupeError
from engine.store.records import OutputChoice
from engine.store.text import counted
from engine.tasks import ModelOutput
from engine.tasks.beam_search import beam_search
from engine.tasks.margin import margin
from engine.tasks.outcomes import EXACT

if TYPE_CHECKING:
    from engine.attribution.trak.plan import Batch

IGNORED = -100
"""Label of places behind the end of a target."""
END = f"{CONTEXT}end"
"""Tensor `[batch]` of a prepared batch: the token that ends a text; −1 if there is none."""
BEAMS = f"{CONTEXT}beams"
"""Tensor `[batch]`: how many partial texts are kept; without it, one."""
INSTEAD = "instead"
"""Record of what a model generates where that is not the target: token ids, −1 behind the end."""


# --- logits of target tokens ----------------------------------------------------------------------


def logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Logits `[batch, target, vocabulary]` of a prepared batch."""
    return logits_of(call(model, batch))


def _labels(batch: Batch, found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Target tokens `[batch, target]` (0 behind the end), and 1.0 where there are any."""
    labels = batch[LABEL][:, : found.shape[1]]
    return labels.clamp(min=0), (labels != IGNORED).to(found.dtype)


def _mean(values: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    return (values * there).sum(1) / there.sum(1)


def token_log_odds(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-odds m_t `[batch, target]` of each target token, and 1.0 where there is one."""
    found = logits(model, batch)
    labels, there = _labels(batch, found)
    return margin(found, labels), there


def _log_probabilities(found: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return found.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def loss(model: torch.nn.Module, batch: Batch, label_smoothing: float) -> torch.Tensor:
    """Cross entropies `[batch]`, averaged over the tokens of each target."""
    found = logits(model, batch)
    labels, there = _labels(batch, found)
    each = functional.cross_entropy(
        found.mT, labels, reduction="none", label_smoothing=label_smoothing
    )
    return _mean(each, there)


# --- the outputs ----------------------------------------------------------------------------------


def log_odds(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean log-odds f of the target's tokens, `[batch]`."""
    return _mean(*token_log_odds(model, batch))


def trained_log_odds(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean log-odds `[batch]` with 1 − p_t as constant weights of tokens: its gradient is φ."""
    each, there = token_log_odds(model, batch)
    unsure = torch.sigmoid(-each.detach()) * there
    return (unsure * each).sum(1) / unsure.sum(1).clamp(min=1e-30)


def log_odds_weight(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Q `[batch]`: the mean of 1 − p_t, which makes Q φ the gradient of −loss."""
    each, there = token_log_odds(model, batch)
    return _mean(torch.sigmoid(-each), there)


def log_likelihood(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Σ_t log p_t, `[batch]`."""
    found = logits(model, batch)
    labels, there = _labels(batch, found)
    return (_log_probabilities(found, labels) * there).sum(1)


def matched_log_odds(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Log-odds of each target token, `[batch, longest]`, scaled so that their mean is f; 0 behind
    the end."""
    each, there = token_log_odds(model, batch)
    return _parts_of_mean(each, there, batch[LABEL].shape[1])


def _parts_of_mean(each: torch.Tensor, there: torch.Tensor, longest: int) -> torch.Tensor:
    scaled = each * there * (longest / there.sum(1, keepdim=True))
    return functional.pad(scaled, (0, longest - each.shape[1]))


LOG_ODDS = ModelOutput(
    "log-odds",
    "the mean log-odds of the target's tokens",
    log_odds,
    log_odds_weight,
    trained=trained_log_odds,
)
LOG_LIKELIHOOD = ModelOutput(
    "log-likelihood", "the log-likelihood of the target", log_likelihood, log_odds_weight
)
OUTPUTS = (LOG_ODDS, LOG_LIKELIHOOD)


# --- outputs that a person chooses ----------------------------------------------------------------

TOKENS, RATHER = "tokens:{}", "rather-than:{}"
CHOICES = (
    OutputChoice(
        LOG_ODDS.name,
        "the answer, by its mean log-odds",
        LOG_ODDS.title,
        "Why does the model answer “{}”?",
        contrary="Why does the model not answer “{}”?",
        raises="Pulled the model toward “{}”",
        lowers="Pulled the model away from “{}”",
        of="target",
    ),
    OutputChoice(
        LOG_LIKELIHOOD.name,
        "the answer, by its log-likelihood",
        LOG_LIKELIHOOD.title,
        "What makes “{}” a likely answer?",
        contrary="What makes “{}” an unlikely answer?",
        raises="Made “{}” a likelier answer",
        lowers="Made “{}” a less likely answer",
        of="target",
    ),
    OutputChoice(
        TOKENS,
        "some of the target's tokens",
        "the mean log-odds of target tokens {}",
        "In the answer “{}”, why “{}”?",
        raises="In the answer “{}”, pulled the model toward “{}”",
        lowers="In the answer “{}”, pulled the model away from “{}”",
        of="target",
        takes="tokens",
    ),
    OutputChoice(
        RATHER,
        "the target rather than another text",
        "the log-likelihood of the target minus that of “{}”",
        "Why “{}” rather than “{}”?",
        raises="Pulled the model toward “{}” rather than “{}”",
        lowers="Pulled the model away from “{}”, toward “{}”",
        of="target",
        takes="text",
    ),
)


def make_output(name: str, numbers: tuple[int, ...]) -> ModelOutput:
    """The mean log-odds of some target tokens, counted from 0 (`tokens:{}`), or how much likelier
    the target is than the text of these token ids (`rather-than:{}`)."""
    return _of_tokens(numbers) if name == TOKENS else _rather_than(numbers)


def _of_tokens(places: tuple[int, ...]) -> ModelOutput:
    def value(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        each, there = token_log_odds(model, batch)
        if max(places) >= each.shape[1] or not bool(there[:, list(places)].all()):
            count = int(there.sum(1).min())
            raise DataloupeError(
                f"There is no target token {1 + max(places)}: the target has "
                f"{counted(count, 'token')}, its end included. Choose others."
            )
        return each[:, list(places)].mean(1)

    return ModelOutput("log-odds", "the mean log-odds of target tokens", value, log_odds_weight)


def _rather_than(ids: tuple[int, ...]) -> ModelOutput:
    def value(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        other = batch["target_ids"].new_tensor(ids).expand(len(batch[LABEL]), -1)
        instead = {
            **batch,
            "target_ids": other,
            "target_mask": torch.ones_like(other),
            LABEL: other,
        }
        return log_likelihood(model, batch) - log_likelihood(model, instead)

    title = "how much likelier the target is than another text"
    return ModelOutput("log-likelihood-ratio", title, value, log_odds_weight)


# --- what is kept ---------------------------------------------------------------------------------


def record(model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """What is kept of each example, of targets with room for the longest.

    `leads` `[batch, longest]`: how far the logit of each target token leads the largest other. They
    are all above 0 exactly where the model generates the target (greedily). Behind the end stands
    the largest, which never decides.
    `token_log_probabilities` `[batch, longest]`: log p_t; 0 behind the end.
    `token_log_odds` `[batch, longest]`: `matched_log_odds`.
    `instead` int64 `[batch, longest]`: tokens that are generated where they are not the target; −1
    behind their end, and everywhere if they are.
    """
    found = logits(model, batch)
    labels, there = _labels(batch, found)
    own = found.gather(-1, labels.unsqueeze(-1))
    others = found.scatter(-1, labels.unsqueeze(-1), -torch.inf)
    best = others.max(-1)
    leads = own.squeeze(-1) - best.values
    most = leads.masked_fill(there == 0, -torch.inf).amax(1, keepdim=True)
    leads = torch.where(there > 0, leads, most)
    room = batch[LABEL].shape[1] - found.shape[1]
    likelihoods = _log_probabilities(found, labels) * there
    return {
        EXACT.record: torch.cat([leads, most.expand(-1, room)], 1),
        "token_log_probabilities": functional.pad(likelihoods, (0, room)),
        "token_log_odds": _parts_of_mean(margin(found, labels), there, there.shape[1] + room),
        INSTEAD: _instead(model, batch, leads.detach(), best.indices),
    }


@torch.no_grad()
def _instead(
    model: torch.nn.Module, batch: Batch, leads: torch.Tensor, best: torch.Tensor
) -> torch.Tensor:
    """What is generated, one likeliest token after the other, where it is not the target; with
    beams, the likeliest text that they find beside the target.

    Up to the first token whose lead is not above 0 it is the target, so generation starts there.
    """
    longest = batch[LABEL].shape[1]
    found = batch[LABEL].new_full((len(leads), longest), -1)
    rows = (leads <= 0).any(1).nonzero()[:, 0]
    if not len(rows):
        return found
    some = {name: tensor[rows] for name, tensor in batch.items()}
    if BEAMS in batch:
        found[rows] = _likeliest_other(model, some, longest)
        return found
    first = (leads[rows] <= 0).int().argmax(1)
    ids = functional.pad(some["target_ids"], (0, longest - leads.shape[1]))
    ids = ids.scatter(1, first[:, None], best[rows].gather(1, first[:, None]))
    start, end = int(first.min()), some[END]
    for place in range(start + 1, longest):
        prefix = {
            **some,
            "target_ids": ids[:, : place + 1],
            "target_mask": torch.ones_like(ids[:, : place + 1]),
        }
        likeliest = logits(model, prefix)[:, place].argmax(-1)
        ids[:, place] = torch.where(first < place, likeliest, ids[:, place])
        if bool((ids[:, : place + 1] == end[:, None]).any(1).all()):
            break
    ended = ((ids == end[:, None]).cumsum(1) > 0).roll(1, 1)
    ended[:, 0] = False
    ids = ids.masked_fill(ended, -1)
    found[rows] = ids
    return found


def _likeliest_other(model: torch.nn.Module, batch: Batch, longest: int) -> torch.Tensor:
    """The likeliest texts `[batch, longest]` that beams find and that are not the target."""
    size = len(batch[LABEL])

    def following(ids: torch.Tensor) -> torch.Tensor:
        count, place = ids.shape[1:]
        several = {name: tensor.repeat_interleave(count, 0) for name, tensor in batch.items()}
        target = functional.pad(ids.flatten(0, 1), (0, 1))
        several |= {"target_ids": target, "target_mask": torch.ones_like(target)}
        found = logits(model, several)[:, place].log_softmax(-1)
        return found.view(size, count, -1)

    texts, _ = beam_search(following, size, int(batch[BEAMS][0]), longest, batch[END][0])
    target = batch[LABEL].masked_fill(batch[LABEL] == IGNORED, -1)
    other = (texts != target[:, None]).any(-1).int().argmax(1)
    return texts[torch.arange(size, device=texts.device), other]


def summarize(
    records: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], classes: Sequence[str]
) -> dict[str, np.ndarray]:
    """Columns of the table of predictions.

    `predicted`: token ids of the target where its tokens lead in the mean of the checkpoints, else
    of what most of those that generate something else do. `correct`: it is the target.
    `log_likelihood`.
    """
    right = EXACT.answers(records[EXACT.record]) == 0
    targets = np.asarray(arrays["target_ids"][:], np.int64)
    lengths = np.minimum(np.asarray(arrays["target_length"][:]), targets.shape[1])
    targets = np.where(np.arange(targets.shape[1]) < lengths[:, None], targets, -1)
    instead = np.asarray(records[INSTEAD], np.int64)
    return {
        "predicted": np.where(right[:, None], targets, instead),
        "correct": right,
        "log_likelihood": records["token_log_probabilities"].sum(axis=1).astype(np.float32),
    }
