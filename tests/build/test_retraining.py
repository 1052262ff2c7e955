"""One store of retrained models: whoever needs a model, it is trained once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Study
from engine.applications.unlearning.audit import audit
from engine.applications.verification import verify
from engine.build import retraining
from engine.build.retraining import FIRST_ORACLE, NOTHING, Removal
from tests.builders.copies import copy_of

REMOVED: Removal = (3, 7, 11)
MODELS = 4
Work = Callable[[Study], object]


def verify_removal(study: Study) -> object:
    return verify(study, list(REMOVED), tests=[7], seeds=MODELS, workers=0)


def audit_removal(study: Study) -> object:
    return audit(study, REMOVED, methods=["ascent"], models=MODELS, budget=0.1, workers=0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (verify_removal, audit_removal),
        (audit_removal, verify_removal),
        (verify_removal, verify_removal),
        (audit_removal, audit_removal),
    ],
    ids=lambda work: work.__name__,
)
def test_each_model_is_trained_once(
    small_study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: Work,
    second: Work,
) -> None:
    study = copy_of(small_study, tmp_path / "study")
    trained: Counter[tuple[Removal, int]] = Counter()
    train_model = retraining.train_model

    def counted(job: retraining.Job) -> None:
        trained[job.model.removed, job.model.seed] += 1
        train_model(job)

    monkeypatch.setattr(retraining, "train_model", counted)
    first(study)
    second(study)
    assert set(trained.values()) == {1}
    seeds = {seed for removed, seed in trained if removed == REMOVED}
    expected: set[int] = set()
    if verify_removal in (first, second):
        expected |= set(range(MODELS))
    if audit_removal in (first, second):
        expected |= {FIRST_ORACLE + number for number in range(MODELS)}
    assert seeds == expected
    # Models trained with all data are shared, and the checkpoints are the first of them.
    own = {seed for removed, seed in trained if removed == NOTHING}
    assert own == set(range(study.checkpoints("mlp"), MODELS))
