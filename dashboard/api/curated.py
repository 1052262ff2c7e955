"""Training examples with all that a curator looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from dashboard.api.examples import Predicted, predicted_fields
from dashboard.api.numbers import Number, is_a, number
from dashboard.read.curation import Curation
from dashboard.read.studies import Examples
from engine.applications.curation.label_suspicion import BLOCK, LabelSuspicion
from engine.store.quantities import (
    DISAGREEMENT,
    LABEL_LOG_ODDS,
    LABEL_MARGIN,
    NET_INFLUENCE,
    SCORE,
    SELF_INFLUENCE,
    SUSPICION,
    Quantity,
)
from engine.store.rows import ranges
from engine.study.decisions import Decision
from engine.study.reader import StudyReader

NET_SCORE = Quantity("net score", SCORE.unit, NET_INFLUENCE.rounding, NET_INFLUENCE.digits)
"""What a net influence is while scores are uncalibrated."""


OF_LABELS = "flagged", "suggested_label", "label_suspicion", "label_log_odds", "label_margin"
"""Fields that need label suspicion."""


@dataclass(frozen=True, kw_only=True)
class Curated(Predicted):
    """A training example with all that a curator looks at; what is unknown is null.

    Attributes:
        label_suspicion: Share of the test labels that look less wrong than its label.
        flagged: Whether its label looks more wrong than nearly all test labels.
        label_log_odds: Of its label, by its margin and its neighbors: the lowest come first.
        label_margin: By models that did not see it; where there are none, by the checkpoints.
        suggested_label: The likeliest other class.
        neighbors_disagree: Share of the nearest training examples with another label.
        self_influence: What training on it adds to its own model output.
        net_influence: Sum of its influences on all test predictions: below 0 where it hurts. While
            scores are uncalibrated, a sum of scores, without a unit.
        decision: `keep`, `relabel` or `remove`; null if none was made.
        new_label: Of a relabeling.
    """

    label_suspicion: Annotated[Number | None, is_a(SUSPICION)]
    flagged: bool | None
    label_log_odds: Annotated[Number | None, is_a(LABEL_LOG_ODDS)]
    label_margin: Annotated[Number | None, is_a(LABEL_MARGIN)]
    suggested_label: str | None
    neighbors_disagree: Annotated[Number | None, is_a(DISAGREEMENT)]
    self_influence: Annotated[Number | None, is_a(SELF_INFLUENCE)]
    net_influence: Annotated[Number | None, is_a(NET_INFLUENCE)]
    decision: str | None
    new_label: str | None


def curated(
    study: StudyReader,
    training: Examples,
    rows: np.ndarray,
    found: Curation,
    made: Mapping[int, Decision],
    method: str | None,
) -> Iterator[Curated]:
    """Training examples with what is known of their labels, made block by block.

    Args:
        method: Of the net influence; None while there are no scores.
    """
    suspicion, output = found.suspicion, study.dataset.output
    net = NET_INFLUENCE if found.calibrated else NET_SCORE

    def known(of: Quantity, values: np.ndarray | None, row: int, by: str | None) -> Number | None:
        if values is None or not np.isfinite(values[row]):
            return None
        return number(of, values[row], output, by)

    suggested = _suggested(suspicion, rows)
    for fields, other in zip(predicted_fields(study, training, rows), suggested, strict=True):
        row = fields["row"]
        decision = made.get(row)
        about: dict[str, Any] = dict.fromkeys(OF_LABELS)
        if suspicion is not None:
            about = {
                "flagged": bool(suspicion.flagged[row]),
                "suggested_label": other,
                "label_suspicion": known(SUSPICION, suspicion.suspicion, row, None),
                "label_log_odds": known(LABEL_LOG_ODDS, suspicion.log_odds, row, None),
                "label_margin": known(LABEL_MARGIN, suspicion.margin, row, None),
            }
        yield Curated(
            **fields,
            **about,
            neighbors_disagree=known(DISAGREEMENT, found.values.get("disagreement"), row, None),
            self_influence=known(SELF_INFLUENCE, found.values.get("self"), row, None),
            net_influence=known(net, found.values.get("help"), row, method),
            decision=None if decision is None else decision.verdict,
            new_label=None if decision is None else decision.label,
        )


def _suggested(suspicion: LabelSuspicion | None, rows: np.ndarray) -> Iterator[str | None]:
    """The likeliest other class of each example, found block by block; None without suspicion."""
    for block in ranges(range(len(rows)), BLOCK):
        if suspicion is None:
            yield from [None] * len(block)
        else:
            yield from suspicion.suggested(rows[block.start : block.stop])
