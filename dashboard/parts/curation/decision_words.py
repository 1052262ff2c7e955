"""What was decided about a training example, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dashboard.names import short
from engine.study.decisions import VERDICTS, Decision

DONE = {"keep": "kept", "relabel": "relabeled", "remove": "removed"}


def decided(decision: Decision) -> str:
    """A decision on a card: `kept`, `→ Coat`, `removed`."""
    return DONE[decision.verdict] if decision.label is None else f"→ {short(decision.label)}"


def tally(decisions: Iterable[Decision]) -> str:
    """How often each was decided: `30 kept, 5 relabeled, 2 removed`."""
    count = Counter(one.verdict for one in decisions)
    return ", ".join(f"{count[name]:,} {DONE[name]}" for name in VERDICTS if count[name])
