"""Outcomes: what a prediction is and when it is right. Not every task has them.

Confusion matrices, flips, brittle predictions and accuracies need outcomes. A task without them,
such as regression, has model outputs only. Everything here is numpy: pages use it without torch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.attribution.logit_gap import best_wrong_classes, gaps_to
from engine.attribution.softmax import margins


@dataclass(frozen=True)
class Matched:
    """Outputs of an example that unlearning matches; the task's first output f follows from them.

    Attributes:
        record: Name of the array `[n, m]` in a model's record (`engine.tasks.Task.matched`).
        output: (array `[..., n, m]`, own `[n]`) → f, float64 `[..., n]`.
        changed: (mean of the checkpoints' records, change of the array `[n, m]`, own `[n]`) → f
            before and after the change, float64 `[n]`.
        relative: Whether only the differences of an example's outputs count, as with logits.
        together: Whether TRAK predicts what removed examples do at once, in a measured size
            (`engine.applications.unlearning.predicted_size`), and not the sum of what each does.
            Sentences that say the same need that; elsewhere sums are what was measured.
    """

    record: str
    output: Callable[[np.ndarray, np.ndarray], np.ndarray]
    changed: Callable[
        [Mapping[str, np.ndarray], np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]
    ]
    relative: bool
    together: bool = False


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of a task, from one array of its records.

    An answer is a number. `own` holds the right answer of each example: its label, if `labeled`,
    else 0.

    Attributes:
        record: Name of the array `[n, ...]` in a model's record: larger for a likelier answer.
        answers: (record `[..., n, ...]`) → the model's answers, int32 `[..., n]`.
        rivals: (record, own `[n]`) → the best wrong answers, int32 `[..., n]`.
        names: (answers `[n]`, class names) → the answers in words, as the column `predicted` of a
            task's `summarize` has them.
        gaps: (record `[n, ...]`, own `[n]`, wrong answers `[n]`) → how far the right answer leads
            the wrong one, float64 `[n]`: below 0 where the wrong one wins.
        flips: (one answer, another, both in words) → whether a prediction that changes so flips.
        labeled: Whether the right answer is the number of the example's label.
        gap: What a gap is called.
        like_output: Whether gaps are in the unit of the task's first output, and change with it.
        expected: Column of the tables of examples with the right answer, if it is no label.
        matched: What unlearning matches; None: models of such tasks cannot unlearn. See `MATCHED`
            of tasks without outcomes.
    """

    record: str
    answers: Callable[[np.ndarray], np.ndarray]
    rivals: Callable[[np.ndarray, np.ndarray], np.ndarray]
    names: Callable[[np.ndarray, Sequence[str]], list[str]]
    gaps: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    flips: Callable[[str, str], bool]
    labeled: bool
    like_output: bool
    gap: str
    expected: str = ""
    matched: Matched | None = None


def _answers(logits: np.ndarray) -> np.ndarray:
    found: np.ndarray = logits.argmax(axis=-1).astype(np.int32)
    return found


def _class_names(answers: np.ndarray, classes: Sequence[str]) -> list[str]:
    return [classes[int(answer)] for answer in answers]


def _margins_changed(
    records: Mapping[str, np.ndarray], change: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    logits = records["logits"]
    return margins(logits, own), margins(logits + change, own)


CLASSES = Outcomes(
    "logits",
    _answers,
    best_wrong_classes,
    _class_names,
    gaps_to,
    operator.ne,
    labeled=True,
    like_output=True,
    gap="logit gap",
    matched=Matched("logits", margins, _margins_changed, relative=True),
)
"""The largest logit is the predicted class. A gap in logits changes as the margin does."""

ABSENT = -2.0
"""In place of a cosine: what is not there to be retrieved."""
OWN_PAIR = "its own pair"
"""The right answer in words."""


def _retrieved(retrieval: np.ndarray) -> np.ndarray:
    """0 where picture and caption find each other; 1 + row of the test pair whose caption the
    picture finds instead; else −1 − row of the pair whose picture the caption finds instead."""
    found = retrieval.argmax(axis=-1)
    caption, picture = found[..., 0], found[..., 1]
    answers: np.ndarray = np.where(caption != 0, caption, -picture).astype(np.int32)
    return answers


def _retrieved_instead(retrieval: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The best wrong answers, of the side where the right one leads least. `own` is always 0."""
    gaps = retrieval[..., 0] - retrieval[..., 1:].max(axis=-1)
    found = 1 + retrieval[..., 1:].argmax(axis=-1)
    closer = gaps[..., 0] <= gaps[..., 1]
    rivals: np.ndarray = np.where(closer, found[..., 0], -found[..., 1]).astype(np.int32)
    return rivals


def _pair_names(answers: np.ndarray, classes: Sequence[str]) -> list[str]:
    return [
        OWN_PAIR
        if answer == 0
        else f"the {'caption' if answer > 0 else 'picture'} of test pair {abs(int(answer)) - 1:,}"
        for answer in answers
    ]


def _first_rank_flips(before: str, after: str) -> bool:
    """Whether a pair loses or gains the first rank. Another wrong pair in place of one is none."""
    return (before == OWN_PAIR) != (after == OWN_PAIR)


def _cosine_gaps(retrieval: np.ndarray, own: np.ndarray, rivals: np.ndarray) -> np.ndarray:
    rows, exact = np.arange(len(rivals)), np.asarray(retrieval, np.float64)
    side = (rivals < 0).astype(int)
    gaps: np.ndarray = exact[rows, side, own] - exact[rows, side, np.abs(rivals)]
    return gaps


RETRIEVAL = Outcomes(
    "retrieval",
    _retrieved,
    _retrieved_instead,
    _pair_names,
    _cosine_gaps,
    _first_rank_flips,
    labeled=False,
    like_output=False,
    gap="lead over what is retrieved instead",
)
"""A pair is right if picture and caption both find each other first among the test pairs. The
record `[n, 2, 1 + pairs]` has the cosines of both directions, the own one first. Gaps are cosines;
outputs are log-odds."""


def _texts(leads: np.ndarray) -> np.ndarray:
    """0 where all tokens of the target lead; else the place, from 1, of the first that does not."""
    wrong = leads <= 0
    first = 1 + wrong.argmax(axis=-1)
    answers: np.ndarray = np.where(wrong.any(axis=-1), first, 0).astype(np.int32)
    return answers


def _closest_texts(leads: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The text with another token where the target's leads least. `own` is always 0."""
    rivals: np.ndarray = (1 + leads.argmin(axis=-1)).astype(np.int32)
    return rivals


_EXPECTED = "the expected text"


def _text_flips(before: str, after: str) -> bool:
    return (before == _EXPECTED) != (after == _EXPECTED)


def _text_names(answers: np.ndarray, classes: Sequence[str]) -> list[str]:
    return [
        _EXPECTED
        if answer == 0
        else "another text" + (f" from token {int(answer)} on" if answer > 1 else "")
        for answer in answers
    ]


def _leads(leads: np.ndarray, own: np.ndarray, rivals: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.asarray(leads, np.float64)[np.arange(len(rivals)), rivals - 1]
    return found


def _mean_of_tokens(log_odds: np.ndarray, own: np.ndarray) -> np.ndarray:
    found: np.ndarray = log_odds.mean(axis=-1, dtype=np.float64)
    return found


def _log_odds_changed(
    records: Mapping[str, np.ndarray], change: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    before = np.asarray(records["output"], np.float64)
    return before, before + _mean_of_tokens(change, own)


EXACT = Outcomes(
    "leads",
    _texts,
    _closest_texts,
    _text_names,
    _leads,
    _text_flips,
    labeled=False,
    like_output=False,
    gap="lead of its least certain token",
    expected="target",
    matched=Matched(
        "token_log_odds", _mean_of_tokens, _log_odds_changed, relative=False, together=True
    ),
)
"""A prediction is right if the likeliest token is the target's at each place, so that exactly the
target is generated. The record `[n, tokens]` has how far each target token's logit leads the
largest other."""


def _minus_mean(errors: np.ndarray, own: np.ndarray) -> np.ndarray:
    found: np.ndarray = -errors.mean(axis=-1, dtype=np.float64)
    return found


def _errors_changed(
    records: Mapping[str, np.ndarray], change: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    before = _minus_mean(np.asarray(records["errors"]), own)
    return before, before + _minus_mean(change, own)


MATCHED = {"denoising": Matched("errors", _minus_mean, _errors_changed, relative=False)}
"""What unlearning matches where there is no right and wrong, by the task's first output: of
denoising, the error at each of an example's draws `[n, draws]`."""

OUTCOMES = {"classes": CLASSES, "retrieval": RETRIEVAL, "exact": EXACT}
"""Name in a task and in dataset.json → its outcomes."""


def outcomes_named(name: str | None) -> Outcomes | None:
    """The outcomes of that name; None for None, a task without right and wrong."""
    return None if name is None else OUTCOMES[name]


def matched_named(outcomes: str | None, output: str) -> Matched | None:
    """What unlearning matches of a task with these outcomes and first output; None: nothing."""
    found = outcomes_named(outcomes)
    return MATCHED.get(output) if found is None else found.matched


def audited_records(outcomes: str | None, output: str) -> tuple[str, ...]:
    """Arrays of a record that audits of unlearning keep of each model; what is matched is first."""
    found, matched = outcomes_named(outcomes), matched_named(outcomes, output)
    names = () if matched is None else (matched.record,)
    return tuple(dict.fromkeys([*names, *(() if found is None else (found.record,))]))
