"""What is computed of all records is the same, however few examples are read at a time."""

from __future__ import annotations

import numpy as np
import pytest

from engine import Study
from engine.applications.brittle.gaps import best_wrong_answers, logit_gaps
from engine.attribution.logit_gap import best_wrong_classes, gaps_to
from engine.attribution.softmax import margins
from engine.study import models
from engine.study.models import read_class_numbers, read_logit_gaps, read_margins, read_mean_logits
from tests.builders.copies import copy_of

FEW = 7


@pytest.fixture
def few_rows(small_study: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study whose records are read a few examples at a time."""
    width = 8 * len(small_study.dataset.classes)
    monkeypatch.setattr(models, "BLOCK_BYTES", FEW * width)
    return small_study


def test_gaps_and_margins(few_rows: Study) -> None:
    algorithm = next(iter(few_rows.algorithms))
    logits = read_mean_logits(few_rows, "test", algorithm)
    own = read_class_numbers(few_rows, "test")
    wrong = best_wrong_classes(logits, own)
    assert len(own) > 3 * FEW
    np.testing.assert_array_equal(read_logit_gaps(few_rows, algorithm), gaps_to(logits, own, wrong))
    gaps, agreeing, known = logit_gaps(few_rows, algorithm)
    np.testing.assert_allclose(gaps.mean(axis=0), gaps_to(logits, own, wrong), atol=1e-12)
    np.testing.assert_array_equal(best_wrong_answers(few_rows, algorithm), wrong)
    for checkpoint, same in enumerate(agreeing):
        alone = models._outputs_of_each(few_rows, "test", algorithm)[checkpoint]["logits"]
        np.testing.assert_array_equal(same, alone.argmax(axis=1) == logits.argmax(axis=1))
    assert known


def test_margins_are_read_or_computed(
    few_rows: Study, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    algorithm = next(iter(few_rows.algorithms))
    for split in ("train", "test"):
        exact = margins(
            read_mean_logits(few_rows, split, algorithm), read_class_numbers(few_rows, split)
        )
        np.testing.assert_allclose(read_margins(few_rows, split, algorithm), exact, atol=1e-5)
        with monkeypatch.context() as other:
            other.setattr(models, "MARGIN", "another output")
            np.testing.assert_array_equal(read_margins(few_rows, split, algorithm), exact)


def test_predictions_are_the_same_in_shards_of_any_size(
    small_study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    from engine.build.stages import predictions
    from engine.store import layout

    study = copy_of(small_study, tmp_path / "study")
    algorithm = next(iter(study.algorithms))
    before = {split: study.predictions(split, algorithm) for split in layout.SPLITS}
    for split in layout.SPLITS:
        layout.predictions_file(study.root, algorithm, split).unlink()
    monkeypatch.setattr(predictions, "ROWS_PER_SHARD", FEW)
    monkeypatch.setattr(predictions, "read_arrays", _in_small_shards)
    for split in layout.SPLITS:
        predictions._average(study, algorithm, split)
        assert study.predictions(split, algorithm).equals(before[split])


def _in_small_shards(study: Study, split: str) -> list[dict[str, np.ndarray]]:
    from engine.study.examples import read_arrays

    (whole,) = read_arrays(study, split)  # type: ignore[arg-type]
    rows = len(next(iter(whole.values())))
    return [
        {name: array[first : first + FEW] for name, array in whole.items()}
        for first in range(0, rows, FEW)
    ]
