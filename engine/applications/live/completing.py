"""Complete an example of which a part is missing: models find that part among the test examples, or
generate it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.applications.live.loading import Arrays, Loaded
from engine.applications.live.queries import FOUND, Completed, Example, Query
from engine.applications.live.reading import read_example
from engine.attribution.ensemble import combined
from engine.data.tokens import ARROW, NOTHING
from engine.store.errors import DataloupeError
from engine.study.examples import read_stacked_arrays
from engine.tasks import Given


def complete(loaded: Loaded, example: Example, by: int | None) -> tuple[Arrays, Completed | None]:
    """The arrays of a whole example, and where its missing part came from.

    Args:
        by: Test row that the missing part is taken from; None: the one that fits best.

    Raises:
        DataloupeError: Models do not look for that row.
    """
    if example.missing is None:
        return example.arrays, None
    retrieval = loaded.task.retrieval
    assert retrieval is not None, "the reader refuses examples that cannot be completed"
    tests = read_stacked_arrays(loaded.study, "test")

    def with_part_of(row: int) -> Arrays:
        whole = {name: np.array(array[row : row + 1]) for name, array in tests.items()}
        return {**whole, **example.arrays}

    asked = retrieval.unlike(with_part_of(0))
    fits = retrieval.fits(mean_record(loaded.evaluate(asked)), example.missing)
    best = np.argsort(-fits, kind="stable")[:FOUND]
    chosen = int(best[0]) if by is None else by
    if not 0 <= chosen < len(fits):
        raise DataloupeError(
            f"Models look among the first {len(fits):,} test examples, which have no row {chosen}."
        )
    found = Completed(example.missing, chosen, best, fits[best], len(fits))
    return with_part_of(chosen), found


def answered(loaded: Loaded, example: Example) -> tuple[Example, str | None]:
    """The example with the target that models generate, if none was given, and that target.

    Raises:
        DataloupeError: They generate nothing.
    """
    task, dataset = loaded.task, loaded.study.dataset
    empty = {} if task.unanswered is None else task.unanswered(dataset.encoding)
    if empty.keys() <= example.arrays.keys():
        return example, None
    arrays = {**example.arrays, **empty}
    record = mean_record(loaded.evaluate(arrays))
    found = task.predictions(record, arrays, dataset.classes, dataset.encoding)["predicted"][0]
    if found == NOTHING:
        raise DataloupeError("The models generate nothing here. Write source => target.")
    given: Given = {"text": f"{example.text}{ARROW}{found}"}
    whole = read_example(Query(loaded.study.root, loaded.algorithm, given))
    notes = ["The target is what the models generate.", *whole.notes]
    return replace(whole, notes=notes), str(found)


def mean_record(found: Sequence[Arrays]) -> Arrays:
    """The mean of the checkpoints' records, without what outputs are trained by."""
    names = [name for name in found[0] if name not in ("embeddings", "output", "out_to_loss")]
    return {name: combined(one[name] for one in found) for name in names}
