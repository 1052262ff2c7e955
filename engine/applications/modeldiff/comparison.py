"""Compare two learning algorithms of a study, and keep the results in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from engine import store
from engine.applications.modeldiff.account import accounts
from engine.applications.modeldiff.chance import DEPENDS_ON, NEEDED, Chance, chance_of
from engine.applications.modeldiff.residuals import Attributions, directions, residuals
from engine.applications.modeldiff.significance import LEVEL, Null, null_of, p_values
from engine.build.stages.search import method_fingerprint
from engine.running.progress import Report
from engine.store import layout
from engine.store.errors import DataloupeError, StoreError
from engine.store.layout import HYBRID, TRAK
from engine.study.methods import method_title
from engine.study.names import resolve_algorithm, resolve_scored_method
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_score_matrix
from engine.study.uploads import ENOUGH

CODE = 3
"""Increment when the same scores would give a different comparison."""


@dataclass(frozen=True)
class Side:
    """One of the two algorithms, and the method of its scores."""

    algorithm: str
    method: str
    name: str
    """Display name of the algorithm."""
    method_title: str
    """Display name of the method."""
    checkpoints: int


def side(study: StudyReader, algorithm: str, method: str | None = None) -> Side:
    """An algorithm with scores.

    Raises:
        DataloupeError: There is no such algorithm or method. StoreError: It has no scores yet.
    """
    algorithm = resolve_algorithm(study, algorithm)
    method = resolve_scored_method(study, algorithm, method)
    upload = study.uploads.get(algorithm)
    name = algorithm if upload is None else upload.name
    title = method_title(study, algorithm, method)
    return Side(algorithm, method, name, title, study.checkpoints(algorithm))


def comparison_id(study: StudyReader, a: Side, b: Side, k: int) -> str:
    """An id that depends only on the compared scores and `k`."""
    sides = [
        [s.algorithm, s.method, method_fingerprint(study, s.algorithm, s.method)] for s in (a, b)
    ]
    return store.fingerprint_of("comparison", CODE, sides, k)


def compare(study: StudyReader, a: Side, b: Side, k: int = 5, report: Report | None = None) -> str:
    """Find the k strongest distinguishing directions of A∖B and B∖A; return the comparison's id.

    Args:
        report: Called with (done, total, what is being done).
    """
    report = report or (lambda done, total, what: None)
    if a.algorithm == b.algorithm and a.method == b.method:
        raise DataloupeError(
            f"{a.algorithm} cannot be compared with itself. Choose a different algorithm."
        )
    comparison = comparison_id(study, a, b, k)
    if layout.comparison_file(study.root, comparison).exists():
        return comparison
    scores_a, scores_b = (read_score_matrix(study, s.algorithm, s.method) for s in (a, b))
    chance = chance_of(study, a.algorithm, b.algorithm, a.method) if a.method == b.method else None
    total = 2 + (0 if chance is None else chance.pairs)
    report(0, total, "Comparing attributions")
    a_minus_b = residuals(scores_a, scores_b)
    found_a = directions(a_minus_b, k, study.spec.seed)
    report(1, total, "Comparing attributions")
    found_b = directions(residuals(scores_b, scores_a), k, study.spec.seed)
    null = Null()
    if chance is not None:
        pairs = _reported(chance, report, total)
        null = null_of(pairs, chance.independent, k, study.spec.seed)
    arrays: dict[str, np.ndarray] = {}
    for key, found in (("a", found_a), ("b", found_b)):
        arrays |= {f"{key}_weights": found.weights, f"{key}_projections": found.projections}
    names = (a.name, b.name)
    p_a = p_values(found_a.distinguishing, null, of_a=True)
    p_b = p_values(found_b.distinguishing, null, of_a=False)
    described = {
        "a": accounts(study, found_a, p_a, a.algorithm, b.algorithm, names),
        "b": accounts(study, found_b, p_b, b.algorithm, a.algorithm, names[::-1]),
    }
    fewest = min((s.checkpoints for s in (a, b) if s.method in (TRAK, HYBRID)), default=ENOUGH)
    content = {
        "id": comparison,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "a": vars(a),
        "b": vars(b),
        "k": k,
        "level": LEVEL,
        "alignment": a_minus_b.alignment,
        "null": vars(null),
        "significance": _how_tested(null, a, b),
        "indicative": fewest < ENOUGH,
        "wanted": max(0, ENOUGH - fewest),
        "directions": {key: [one.to_dict() for one in found] for key, found in described.items()},
    }
    store.write_tensors(layout.comparison_arrays_file(study.root, comparison), arrays, comparison)
    store.write_json(layout.comparison_file(study.root, comparison), content, comparison)
    report(total, total, "Done")
    return comparison


def read_comparison(study: StudyReader, comparison: str) -> dict[str, Any]:
    """The content that `compare` wrote. Raises StoreError if there is none."""
    if not re.fullmatch("[0-9a-f]{16}", comparison):
        raise StoreError(f"{study.root} has no comparison {comparison!r}.")
    return store.read_json(layout.comparison_file(study.root, comparison))


def _reported(
    chance: Chance, report: Report, total: int
) -> Iterator[tuple[Attributions, Attributions]]:
    """The pairs, with progress."""
    for number in range(chance.pairs):
        report(2 + number, total, "Finding what chance alone does")
        yield chance.pair(number)


def _how_tested(null: Null, a: Side, b: Side) -> str:
    """One sentence on how significance was tested."""
    depends_on = DEPENDS_ON.get(a.method)
    if null.known:
        return (
            f"Tested against {len(null.a)} imitations of both as one algorithm, from their "
            f"{depends_on}; corrected for all directions of both sides, level {LEVEL:g}."
        )
    if a.method != b.method:
        return "Not tested: two methods differ even for the same algorithm."
    if depends_on is None:
        return "Not tested: for imported scores, the effect of chance is unknown."
    return f"Not tested: {NEEDED[a.method]}."
