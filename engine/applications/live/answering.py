"""Answer live queries: predict an example from outside, attribute one output of an example."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from engine.applications.live.completing import answered, complete, mean_record
from engine.applications.live.loading import Arrays, Loaded, live_stamps, load, output_of
from engine.applications.live.queries import (
    KEPT,
    Attributed,
    Completed,
    Query,
    QueryResult,
    ReadQuery,
    StoredQuery,
)
from engine.applications.live.reading import read_example
from engine.attribution.scores.top_k import top_k_among
from engine.attribution.softmax import softmax
from engine.store.cache import Stamps
from engine.store.quantities import MEASURES
from engine.study.capabilities import has
from engine.study.example_outputs import read_known
from engine.study.examples import read_stacked_arrays
from engine.study.group_sums import sums_by_group
from engine.study.models import read_mean_records
from engine.study.output_names import (
    NamedOutput,
    concrete,
    resolve_output,
    unlabeled_output,
)
from engine.study.reader import StudyReader
from engine.tasks.outcomes import outcomes_named

ANSWERS_KEPT = 256
"""Answers about the study's own examples that stay in memory."""


def run_query(query: Query) -> QueryResult:
    """Predict and attribute an example. The first query of a study takes seconds to load it.

    Raises:
        DataError: The example cannot be used.
        DataloupeError: The study keeps nothing for live queries, or has no such output.
    """
    load(query.root, query.algorithm)
    return explain(query.read_as(read_example(query)))


def warm_up(query: Query | StoredQuery) -> None:
    """Load everything that answers need; the content of the query is ignored."""
    load(query.root, query.algorithm)


def explain(query: ReadQuery) -> QueryResult:
    """Predict and attribute an example that `read_example` gave. Raises as `load`."""
    loaded = load(query.root, query.algorithm)
    study, (example, generated) = loaded.study, answered(loaded, query.example)
    arrays, completed = complete(loaded, example, query.completed_by)
    found = loaded.evaluate(arrays)
    record = mean_record(found)
    # What follows from the label means nothing here: the example has none.
    dataset = study.dataset
    summary = loaded.task.predictions(record, arrays, dataset.classes, dataset.encoding)
    # Checkpoints that disagree vote on a text; what is more likely than it, taken together, is
    # another question.
    predicted = generated or _plain(summary["predicted"][0])
    confidence = summary.get("confidence")
    default = _default(loaded, completed)
    chosen = default if query.output is None else resolve_output(study, query.output)
    output = concrete(study, chosen, None, str(predicted))
    similar, similarities = loaded.nearest([one.get("embeddings") for one in found])
    return QueryResult(
        **vars(_attribute(loaded, output, record, arrays, KEPT)),
        default=default,
        thumbnail=example.thumbnail,
        text=example.text,
        notes=example.notes,
        completed=completed,
        predicted=predicted,
        measures={name: float(summary[name][0]) for name in MEASURES if name in summary},
        confidence=None if confidence is None else float(confidence[0]),
        probabilities=_probabilities(study, record),
        predicting=len(loaded.models),
        similar=similar,
        similarities=similarities,
    )


def explain_stored(query: StoredQuery) -> Attributed:
    """Attribute an output of one of the study's examples. The last answers are kept in memory.

    Raises:
        DataloupeError: The study keeps nothing for live queries, or has no such output.
        StoreError: It is not built.
    """
    study = StudyReader.open(query.root)
    load(query.root, query.algorithm)
    return _explain_stored(query, live_stamps(study, query.algorithm))


@functools.lru_cache(maxsize=ANSWERS_KEPT)
def _explain_stored(query: StoredQuery, stamps: Stamps) -> Attributed:
    loaded = load(query.root, query.algorithm)
    row = query.row
    known = read_known(loaded.study, query.split, row, query.algorithm)
    chosen = resolve_output(loaded.study, query.output)
    output = concrete(loaded.study, chosen, known.label, known.predicted)
    every = read_stacked_arrays(loaded.study, query.split)
    arrays = {name: np.array(array[row : row + 1]) for name, array in every.items()}
    record = read_mean_records(loaded.study, query.split, query.algorithm, slice(row, row + 1))
    return _attribute(loaded, output, record, arrays, query.most)


def _default(loaded: Loaded, completed: Completed | None) -> NamedOutput:
    """What is attributed unless a person chooses."""
    retrieval = loaded.task.retrieval
    if completed is None or retrieval is None:
        return unlabeled_output(loaded.study)
    return resolve_output(loaded.study, retrieval.outputs[completed.part])


def _attribute(
    loaded: Loaded, output: NamedOutput, record: Arrays, arrays: Arrays, most: int
) -> Attributed:
    asked = output_of(loaded.study, output)
    scores = loaded.scores(arrays, asked)
    all_rows = np.arange(scores.shape[1])[None]
    top = top_k_among(scores, all_rows, min(most, scores.shape[1]))
    support, oppose = top.support_index[0], top.oppose_index[0]
    return Attributed(
        output=output,
        value=loaded.value(asked, record, arrays),
        scoring=len(loaded.checkpoints),
        support=support[support >= 0],
        support_scores=top.support_score[0][support >= 0],
        support_total=float(scores.sum(where=scores > 0)),
        oppose=oppose[oppose >= 0],
        oppose_scores=top.oppose_score[0][oppose >= 0],
        oppose_total=float(scores.sum(where=scores < 0)),
        by_group=sums_by_group(loaded.study, scores[0]),
    )


def _probabilities(study: StudyReader, record: Arrays) -> np.ndarray | None:
    outcomes = outcomes_named(study.dataset.outcomes)
    if outcomes is None or not has(study, "classes"):
        return None
    return softmax(record[outcomes.record][0])


def _plain(value: Any) -> str | float:
    return value if isinstance(value, str) else float(value)
