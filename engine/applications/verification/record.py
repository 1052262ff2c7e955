"""The record of a verification: a removal, as scores predicted it and as retraining measured it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from engine import store
from engine.attribution.evaluation.quality import Measured, share
from engine.store import layout
from engine.store.errors import MissingFile
from engine.study.reader import StudyReader
from engine.tasks.outcomes import Outcomes, outcomes_named


@dataclass(frozen=True)
class Outcome:
    """The effect of a removal on one test example.

    A model *flips* the prediction if it predicts another class than the study's checkpoints
    together; of pairs, if one is right and the other wrong. For a task without right and wrong
    nothing flips, and there are no answers.

    Attributes:
        test, id, label: The test example.
        before: What the study's checkpoints together predict.
        predicted: Change of the output predicted from scores, on average over seeds, with its 95 %
            interval; None if the scores are not calibrated.
        with_all, without: Outputs of the models with all data and without the removal set, by seed.
        answers_with, answers_without: What they predict, such as a class.
        change: Actual change of the output: mean over pairs of models with the same seed.
        low, high: Its 95 % interval by Student's t; None for a single seed.
        flips: Share of the models without the removal set that flip, with its 95 % interval.
        flips_with: The same of the models with all data, which flip by chance alone.
        file: The file of a picture; None if it has none.
    """

    test: int
    id: str
    label: str
    before: str
    predicted: Measured | None
    with_all: list[float]
    without: list[float]
    answers_with: list[str]
    answers_without: list[str]
    change: float
    low: float | None
    high: float | None
    flips: Measured | None
    flips_with: Measured | None
    file: str | None = None

    @property
    def flipped(self) -> bool:
        """Whether most of the models without the removal set flip."""
        return self.flips is not None and self.flips.mean > 0.5

    @property
    def flipped_by_chance(self) -> bool:
        """Whether most of the models with all data flip."""
        return self.flips_with is not None and self.flips_with.mean > 0.5


@dataclass(frozen=True)
class Verification:
    """A removal, predicted and verified by retraining.

    Attributes:
        id: Names the request: the same request to the same study has the same id.
        method: Attribution method of the predictions; None if the study has no scores.
        removed, removed_ids: Training rows left out, ascending, and their ids.
        seeds: Number of models with all data, and of models without the removal set.
        outcomes: One for each requested test example.
        control_removed: The same number of random training examples of the same classes; empty
            without a control.
        control: Outcomes of removing those.
        created: When, UTC.
        fingerprint: Fingerprint of the models without the removal set.
        scores: Fingerprint of the scores that made the predictions.
        device, versions: Of the training of the last model.
        removed_files: The files of the pictures left out, None for each without a file; empty in
            records from before files were kept.
    """

    id: str
    algorithm: str
    method: str | None
    removed: list[int]
    removed_ids: list[str]
    seeds: int
    outcomes: list[Outcome]
    control_removed: list[int]
    control: list[Outcome]
    created: str
    fingerprint: str
    scores: str | None
    device: str
    versions: dict[str, str]
    removed_files: list[str | None] = field(default_factory=list)

    def of(self, test: int) -> Outcome | None:
        """The outcome for a test example, if it was requested."""
        return next((outcome for outcome in self.outcomes if outcome.test == test), None)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], outcomes: Outcomes | None) -> Verification:
        """The reverse of `to_dict`, for a study with these outcomes."""
        return cls(
            **{
                **content,
                "outcomes": [_outcome(one, outcomes) for one in content["outcomes"]],
                "control": [_outcome(one, outcomes) for one in content["control"]],
            }
        )


def share_flipped(
    before: str, answers: Sequence[str], outcomes: Outcomes | None
) -> Measured | None:
    """Share of the models whose answer is a flip from `before`; None without answers."""
    if not answers or outcomes is None:
        return None
    return share(sum(outcomes.flips(before, answer) for answer in answers), len(answers))


def _outcome(content: Mapping[str, Any], outcomes: Outcomes | None) -> Outcome:
    predicted, before = content["predicted"], content["before"]
    read = {
        "predicted": None if predicted is None else Measured(**predicted),
        # Not as stored: records of before flips were what they are now counted other ones.
        "flips": share_flipped(before, content["answers_without"], outcomes),
        "flips_with": share_flipped(before, content["answers_with"], outcomes),
    }
    return Outcome(**{**content, **read})


def read_verifications(study: StudyReader, algorithm: str) -> list[Verification]:
    """All verifications in the study, oldest first. Raises StoreError for a broken file."""
    found, outcomes = [], outcomes_named(study.dataset.outcomes)
    for path in layout.verification_files(study.root, algorithm):
        with contextlib.suppress(MissingFile):  # removed just now
            found.append(Verification.from_dict(store.read_json(path), outcomes))
    return sorted(found, key=lambda one: (one.created, one.id))
