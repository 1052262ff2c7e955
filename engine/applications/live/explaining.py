"""Explain any output of a test example: from the stored scores, or live."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.applications.live.answering import explain_stored
from engine.applications.live.queries import Attributed, StoredQuery
from engine.store.errors import DataloupeError, MissingCapability
from engine.store.layout import TRAK
from engine.store.records import Explanation
from engine.study.example_outputs import Known, live_missing, read_known
from engine.study.explanations import describe, explain
from engine.study.measured_quality import live_badge
from engine.study.names import resolve_algorithm, resolve_method, resolve_row
from engine.study.output_names import NamedOutput, resolve_output
from engine.study.rankings import name_influences
from engine.study.reader import StudyReader


def explain_output(
    study: StudyReader,
    test: int | str,
    output: str,
    k: int = 10,
    algorithm: str | None = None,
    method: str | None = None,
) -> Explanation:
    """Explain an output of a test prediction by its k strongest training examples of each sign.

    Where the stored scores are those of this output, they are used, with any method. Otherwise the
    scores are TRAK's, from the checkpoints that are kept for live queries.

    Args:
        output: Its name (`engine.study.output_names`).

    Raises:
        UnknownName: There is no such example, output, algorithm or method.
        DataloupeError: k is below 1, the study lacks what scores of this output need, or a method
            other than TRAK was asked for.
        StoreError: The scores are not built yet.
    """
    algorithm = resolve_algorithm(study, algorithm)
    row, named = resolve_row(study, "test", test), resolve_output(study, output)
    known = read_known(study, "test", row, algorithm)
    if known.is_stored(study, named):
        found = explain(study, row, k, algorithm, method)
        return replace(found, **_about(study, named, known))
    if k < 1:
        raise DataloupeError(f"k must be at least 1, not {k}.")
    if method is not None and resolve_method(study, algorithm, method) != TRAK:
        raise DataloupeError(
            f"Scores by {method} are stored for {study.dataset.output_title} alone; those of "
            f"{named.title} are computed live by {TRAK}. Leave the method out."
        )
    if reason := live_missing(study, algorithm):
        raise MissingCapability(reason)
    query = StoredQuery(study.root, algorithm, "test", row, named.name, k)
    return live_explanation(study, query, explain_stored(query), k)


def live_explanation(
    study: StudyReader, query: StoredQuery, found: Attributed, k: int
) -> Explanation:
    """The answer to a query about a test example as an `Explanation`, without torch."""
    known = read_known(study, "test", query.row, query.algorithm)
    named = resolve_output(study, query.output)
    supporting, opposing = name_influences(
        study,
        (found.support[:k], found.support_scores[:k]),
        (found.oppose[:k], found.oppose_scores[:k]),
    )
    return Explanation(
        **{
            **describe(study, query.row, query.algorithm, TRAK),
            **_about(study, named, known),
            "output": found.value,
        },
        supporting=supporting,
        opposing=opposing,
        badge=live_badge(study, query.algorithm, known.is_stored(study, named)),
    )


def _about(study: StudyReader, output: NamedOutput, known: Known) -> dict[str, Any]:
    return {
        "output_name": output.name,
        "output_title": output.title,
        "question": known.question(study, output),
    }
