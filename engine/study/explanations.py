"""One prediction, with the training examples that support and oppose it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from engine.store.errors import DataloupeError
from engine.store.quantities import predicted_text
from engine.store.records import Explanation
from engine.study.counterfactuals import read_units
from engine.study.example_outputs import Known, target_of
from engine.study.examples import FILE, TEXT, read_texts_of
from engine.study.measured_quality import read_badge
from engine.study.models import has_predictions, read_predictions
from engine.study.names import read_names_of, resolve_algorithm, resolve_method, resolve_row
from engine.study.output_names import default_output
from engine.study.rankings import find_influences, name_influences
from engine.study.reader import StudyReader


def explain(
    study: StudyReader,
    test: int | str,
    k: int = 10,
    algorithm: str | None = None,
    method: str | None = None,
) -> Explanation:
    """Explain one test prediction by its k strongest training examples of each sign.

    Raises:
        UnknownName: There is no such example, algorithm or method. DataloupeError: k is below 1.
        StoreError: The scores are not built yet.
    """
    algorithm = resolve_algorithm(study, algorithm)
    if k < 1:
        raise DataloupeError(f"k must be at least 1, not {k}.")
    method = resolve_method(study, algorithm, method)
    row = resolve_row(study, "test", test)
    support, support_scores, oppose, oppose_scores = find_influences(
        study, row, k, algorithm, method
    )
    units = read_units(study, algorithm, method)
    supporting, opposing = name_influences(
        study, (support, support_scores), (oppose, oppose_scores), units=units, test=row
    )
    return Explanation(
        **describe(study, row, algorithm, method),
        supporting=supporting,
        opposing=opposing,
        badge=read_badge(study, algorithm, method),
    )


def describe(study: StudyReader, row: int, algorithm: str, method: str) -> dict[str, Any]:
    """The fields of an `Explanation` of the default output, but for its influences and badge."""
    (example,) = read_names_of(study, "test", [row])
    (file,), (text,) = (read_texts_of(study, "test", name, [row]) for name in (FILE, TEXT))
    prediction = _prediction(study, row, algorithm)
    label = None if study.dataset.labels == "none" else str(example["label"])
    target, predicted = target_of(study, "test", row), prediction["predicted"]
    if target is not None and prediction["correct"]:
        predicted = target  # however it is decoded
    known = Known(label, predicted, (), target)
    return {
        "study": study.spec.name,
        "algorithm": algorithm,
        "method": method,
        "row": row,
        "id": str(example["id"]),
        "label": str(example["label"]),
        "output_name": study.dataset.output,
        "output_title": study.dataset.output_title,
        "question": known.question(study, default_output(study)),
        **prediction,
        "file": file,
        "text": text,
    }


def _prediction(study: StudyReader, row: int, algorithm: str) -> dict[str, Any]:
    """The prediction of a test example; a value is None before it is built, and where the task
    does not give it."""
    kinds: dict[str, Callable[[Any], Any]] = {
        "predicted": partial(predicted_text, kind=study.dataset.predicted),
        "correct": bool,
        "confidence": float,
        "output": float,
    }
    if not has_predictions(study, algorithm):
        return dict.fromkeys(kinds)
    found = read_predictions(study, "test", algorithm).iloc[row]
    return {name: kind(found[name]) if name in found else None for name, kind in kinds.items()}
