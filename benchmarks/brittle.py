"""How many predictions flip, of those predicted to flip when a few training examples are removed?

    python -m benchmarks.brittle --json [--save]
    DATALOUPE_STUDY=FOLDER python -m benchmarks.brittle --json

The study is the demo's, with `RUNS` subset runs. `PREDICTIONS` are drawn at random from those that
are predicted to flip at k ≤ 20. For each, models are retrained without its removal set, with
`SEEDS` seeds. The control is the removal of random training examples of the same class: one removal
for each group of predictions whose removal sets have about the same size and mostly the same class,
and never fewer examples than theirs. A prediction has flipped if most of the models flip it.
`PROBABILITY` and `REQUIRED_AGREEMENT` in engine/applications/brittle/supports.py were
chosen on the test examples `CHOSEN_ON`, which are excluded here.
"""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from typing import Any

import numpy as np

from benchmarks._report import log, report
from benchmarks._study import built
from engine.api import Study
from engine.applications.brittle.supports import (
    PROBABILITY,
    REQUIRED_AGREEMENT,
    Supports,
    find,
    verify_brittle,
)
from engine.applications.verification import (
    Outcome,
    agreement,
    predicted_and_actual,
    verify_all,
)
from engine.applications.verification.verifying import Request
from engine.attribution.evaluation.quality import Measured, share
from engine.build.retraining import removal_of
from engine.data.templates import spec_from_template

STUDY = "DATALOUPE_STUDY"
RUNS = 100
PREDICTIONS = 30
CHOSEN_ON = (
    *(27, 57, 98, 127, 170, 239, 332, 354, 404, 468, 475, 512, 558, 581, 607, 616, 629, 664),
    *(805, 877, 926, 956, 967),
)
"""Test rows that were examined before, with or without their removal sets."""
SEEDS = 5
AT_MOST = 20
SIZES = (5, 10, 20)
"""Sizes of random removals: each prediction gets the smallest one that is large enough."""


def measure() -> dict[str, Any]:
    """The figures of the demo's study, or of the built study in `$DATALOUPE_STUDY` as `photos`."""
    if folder := os.environ.get(STUDY):
        return {"photos": measured(Study.open(folder))}
    spec = spec_from_template("fashion-mnist")
    masks = re.sub(r"^masks = .*", f"masks = {RUNS}", spec, flags=re.MULTILINE)
    return measured(built("brittle", masks))


def measured(study: Study) -> dict[str, Any]:
    """The figures of a built study."""
    start = time.perf_counter()
    supports = find(study, at_most=AT_MOST)
    found_after = time.perf_counter() - start
    tests = drawn(supports, PREDICTIONS)
    log(
        f"{len(supports.ranked)} are predicted to flip at k <= {AT_MOST}; {len(tests)} are verified"
    )
    start = time.perf_counter()
    verifications = verify_brittle(
        study, supports, tests.tolist(), seeds=SEEDS, report=log_progress
    )
    outcomes = [one.outcomes[0] for one in verifications]
    random = list(random_outcomes(study, supports, tests).values())
    changes = predicted_and_actual(verifications)
    agreed = agreement(changes["predicted"], changes["actual"])
    wrong = [outcome for outcome in outcomes if not supports.right[outcome.test]]
    right = [outcome for outcome in outcomes if supports.right[outcome.test]]
    return {
        "verified_share": flipped(outcomes),
        "random_share": flipped(random),
        "verified_right": flipped(right),
        "verified_wrong": flipped(wrong),
        "flip_rate": mean_rate(outcomes),
        "random_flip_rate": mean_rate(random),
        "slope": None if agreed is None else round(agreed[0], 3),
        "correlation": None if agreed is None else round(agreed[1], 3),
        "predictions": len(outcomes),
        "random_removals": len({tuple(one) for one in groups(study, supports, tests)}),
        "seeds": SEEDS,
        "subset_runs": study.spec.subset_runs.masks,
        "at_most": AT_MOST,
        "predicted_to_flip": len(supports.ranked),
        "test_examples": len(supports.logit_gap),
        "sizes": [int(supports.size[test]) for test in tests],
        "method": supports.method,
        "badge": str(study.badge(supports.algorithm, supports.method)),
        "probability": PROBABILITY,
        "required_agreement": REQUIRED_AGREEMENT,
        "find_seconds": round(found_after, 2),
        "seconds": round(time.perf_counter() - start, 1),
    }


def drawn(supports: Supports, number: int) -> np.ndarray:
    """A random sample of the predictions that are expected to flip, in ascending order."""
    rows = np.setdiff1d(supports.ranked, CHOSEN_ON)
    keys = np.random.PCG64(0).random_raw(len(rows))
    return np.sort(rows[np.argsort(keys, kind="stable")[:number]])


def groups(study: Study, supports: Supports, tests: np.ndarray) -> dict[tuple[int, ...], list[int]]:
    """Map random removal sets to the predictions that they are compared with.

    A set has examples of one class: the most common class of the predictions' own removal sets.
    """
    labels = study.table("train")["label"].to_numpy()
    members: dict[tuple[str, int], list[int]] = defaultdict(list)
    for test in tests:
        own = labels[supports.removal(test)]
        names, counts = np.unique(own, return_counts=True)
        size = next(size for size in SIZES if size >= len(own))
        members[str(names[counts.argmax()]), size].append(int(test))
    found = {}
    for (label, size), those in sorted(members.items()):
        others = np.flatnonzero(labels == label)
        others = np.setdiff1d(others, np.concatenate([supports.removal(test) for test in those]))
        keys = np.random.PCG64([size, *those]).random_raw(len(others))
        chosen = others[np.argsort(keys, kind="stable")[:size]]
        found[removal_of(study, chosen.tolist())] = those
    return found


def random_outcomes(study: Study, supports: Supports, tests: np.ndarray) -> dict[int, Outcome]:
    """Outcomes of the random removals, for each prediction."""
    requests = [
        Request(removed, tuple(those)) for removed, those in groups(study, supports, tests).items()
    ]
    found = verify_all(
        study,
        requests,
        seeds=SEEDS,
        algorithm=supports.algorithm,
        method=supports.method,
        report=log_progress,
    )
    return {outcome.test: outcome for one in found for outcome in one.outcomes}


def flipped(outcomes: list[Outcome]) -> dict[str, float] | None:
    """Share of the predictions flipped by most models, with its 95 % interval."""
    if not outcomes:
        return None
    found = share(sum(outcome.flipped for outcome in outcomes), len(outcomes))
    return _rounded(found) | {"n": len(outcomes)}


def mean_rate(outcomes: list[Outcome]) -> float:
    """Mean share of the models that flip a prediction."""
    return round(float(np.mean([outcome.flips.mean for outcome in outcomes if outcome.flips])), 3)


def _rounded(measured: Measured) -> dict[str, float]:
    return {name: round(value, 3) for name, value in vars(measured).items()}


def log_progress(done: int, total: int, what: str) -> None:
    log(f"{done} of {total} models")


if __name__ == "__main__":
    report("brittle", measure, __doc__ or "")
