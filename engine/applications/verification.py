"""Prove by retraining what removing training examples does, beside what scores said it would do.

    verify(study, ["train-17", "train-99"], tests=["test-3"]).outcomes[0].flips

Every verification is kept in the study, so that predicted and actual changes can be compared over
all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from engine import store
from engine.attribution.evaluation.quality import Measured, share
from engine.build.retraining import (
    NOTHING,
    Removal,
    check_recipe,
    is_trained,
    removal_of,
    retrain,
    retrained,
    retrained_fingerprint,
)
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.study.counterfactuals import predict_removal
from engine.study.methods import ranked_methods
from engine.study.models import has_predictions, read_predictions
from engine.study.names import resolve_algorithm, resolve_method, resolve_rows
from engine.study.reader import StudyReader
from engine.study.score_matrices import read_score_matrix

CODE = 1
"""Raised whenever the same models would be told otherwise."""
MOST_SEEDS = 100


Report = Callable[[int, int, str], None]
"""Called with (done, total, what is being done)."""


@dataclass(frozen=True)
class Outcome:
    """What a removal did to one test example.

    A model *flips* the prediction if it is right where the study's checkpoints together are wrong,
    or wrong where they are right.

    Attributes:
        test, id, label: The test example.
        before: Class that the study's checkpoints together predict.
        predicted: Change of the margin that the scores foretold, on average over seeds, with its
            95 % interval; None where scores are not calibrated.
        with_all, without: Margins of the models with all data and without the removal set, by seed.
        classes_with, classes_without: The classes that they predict.
        change: Mean actual change of the margin, seed by seed.
        low, high: Its 95 % interval by Student's t; None for a single seed.
        flips: Share of the models without the removal set that flip, with its 95 % interval.
        flips_with: The same of the models with all data: flips that are luck alone.
    """

    test: int
    id: str
    label: str
    before: str
    predicted: Measured | None
    with_all: list[float]
    without: list[float]
    classes_with: list[str]
    classes_without: list[str]
    change: float
    low: float | None
    high: float | None
    flips: Measured
    flips_with: Measured

    @property
    def flipped(self) -> bool:
        """Whether most of the models without the removal set flip."""
        return self.flips.mean > 0.5


@dataclass(frozen=True)
class Verification:
    """A removal, as predicted and as retraining had it.

    Attributes:
        id: Stands for the question: asked again of the same study, it has the same.
        method: Whose scores were asked; None where the study has none.
        removed: Training rows left out, ascending; `removed_ids` are theirs.
        seeds: Models with and models without.
        outcomes: One for each test example asked about.
        control_removed: As many random training examples of the same classes; empty without
            control.
        control: What their removal did.
        created: When, UTC.
        fingerprint: Fingerprint of the models without the removal set.
        scores: Fingerprint of the scores that foretold.
        device, versions: That the last of the models was trained with.
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

    def of(self, test: int) -> Outcome | None:
        """What it did to a test example, if that was asked."""
        return next((outcome for outcome in self.outcomes if outcome.test == test), None)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Verification:
        """The reverse of `to_dict`."""
        return cls(
            **{
                **content,
                "outcomes": [_outcome(one) for one in content["outcomes"]],
                "control": [_outcome(one) for one in content["control"]],
            }
        )


def _outcome(content: Mapping[str, Any]) -> Outcome:
    predicted = content["predicted"]
    return Outcome(
        **{
            **content,
            "predicted": None if predicted is None else Measured(**predicted),
            "flips": Measured(**content["flips"]),
            "flips_with": Measured(**content["flips_with"]),
        }
    )


@dataclass(frozen=True)
class Question:
    """A verification that is asked for, checked.

    Attributes:
        removed: Training rows to leave out.
        tests: Test rows asked about.
    """

    removed: Removal
    tests: tuple[int, ...]


def verify(
    study: StudyReader,
    removed: Iterable[int | str],
    *,
    tests: Iterable[int | str] = (),
    seeds: int = 5,
    algorithm: str | None = None,
    method: str | None = None,
    control: bool = False,
    device: str = "auto",
    workers: int | None = None,
    report: Report | None = None,
) -> Verification:
    """Retrain without some training examples and keep what came of it.

    Models with all data are the study's checkpoints, as far as there are so many.

    Args:
        removed: Rows or ids of training examples.
        tests: Rows or ids of the test examples to tell of.
        seeds: Models with and without.
        method: Whose scores foretell; None: the default.
        control: Also retrain without as many random training examples of the same classes.
        device, workers: As for `build`.
        report: Called as models are done.

    Raises:
        DataloupeError: No such example; nothing, a whole class or everything is removed; too few or
            too many seeds; or a training failed.
        SpecError: The algorithm has no recipe.
        StoreError: Another process writes to the study, or the disk is full.
        InterruptedBuild: Ctrl-C. What is finished is kept.
    """
    question = ask(study, removed, tests)
    (found,) = verify_all(
        study,
        [question],
        seeds=seeds,
        algorithm=algorithm,
        method=method,
        control=control,
        device=device,
        workers=workers,
        report=report,
    )
    return found


def ask(study: StudyReader, removed: Iterable[int | str], tests: Iterable[int | str]) -> Question:
    """Check a removal set and the test examples asked about. Raises as `verify`."""
    rows = resolve_rows(study, "test", list(tests)).tolist()
    return Question(removal_of(study, removed), tuple(dict.fromkeys(rows)))


def verify_all(
    study: StudyReader,
    questions: Sequence[Question],
    *,
    seeds: int = 5,
    algorithm: str | None = None,
    method: str | None = None,
    control: bool = False,
    device: str = "auto",
    workers: int | None = None,
    report: Report | None = None,
) -> list[Verification]:
    """Verify several removals with one set of workers; each is kept as soon as it is done.

    Args and errors as for `verify`.
    """
    algorithm, method = check(study, algorithm, method, seeds)
    controls = [control_of(study, one.removed) if control else NOTHING for one in questions]
    removals = [NOTHING]
    for question, beside in zip(questions, controls, strict=True):
        removals += [question.removed, *([beside] if control else [])]
    told = report or (lambda done, total, what: None)
    found: dict[int, Verification] = {}

    def conclude(removed: Removal, done: int, total: int) -> None:
        told(done, total, f"without {len(removed):,}" if removed else "with all data")
        for number, (question, beside) in enumerate(zip(questions, controls, strict=True)):
            concerns = removed in (NOTHING, question.removed, beside) and number not in found
            if concerns and _all_trained(study, algorithm, question, beside, seeds):
                found[number] = _tell(study, algorithm, method, question, beside, seeds)

    retrain(study, algorithm, removals, seeds, device, workers, conclude)
    return [found[number] for number in range(len(questions))]


def check_job(study: StudyReader, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `run_job`, complete and checked. Raises as `verify`."""
    defaults: dict[str, Any] = {"removed": [], "tests": [], "seeds": 5, "algorithm": None}
    defaults |= {"method": None, "control": False, "device": "auto", "workers": None}
    asked = complete(defaults, parameters)
    question = ask(study, asked["removed"], asked["tests"])
    algorithm, method = check(study, asked["algorithm"], asked["method"], asked["seeds"])
    return asked | {
        "removed": list(question.removed),
        "tests": list(question.tests),
        "algorithm": algorithm,
        "method": method,
    }


def run_job(study: StudyReader, parameters: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """A job of the queue: `parameters` are the arguments of `verify`; the answer names it."""
    found = verify(study, report=report, **parameters)
    return {
        "verification": found.id,
        "algorithm": found.algorithm,
        "removed": len(found.removed),
        "flipped": sum(outcome.flipped for outcome in found.outcomes),
        "tests": len(found.outcomes),
    }


def complete(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults where nothing is given. Raises DataloupeError for a parameter that there is not."""
    if unknown := sorted(given.keys() - defaults.keys()):
        raise DataloupeError(f"There is no parameter {unknown[0]!r} of this job.")
    return {**defaults, **given}


def check(
    study: StudyReader, algorithm: str | None, method: str | None, seeds: int
) -> tuple[str, str | None]:
    """(algorithm, method), if what they name can be verified. Raises as `verify`."""
    algorithm = resolve_algorithm(study, algorithm)
    if not 1 <= seeds <= MOST_SEEDS:
        raise DataloupeError(f"seeds must be from 1 to {MOST_SEEDS}, not {seeds}.")
    check_recipe(study, algorithm)
    if not has_predictions(study, algorithm):
        raise DataloupeError(
            f"{study.root} has no predictions of {algorithm} yet. `dataloupe build {study.root}` "
            "makes them."
        )
    if method is not None or ranked_methods(study, algorithm):
        method = resolve_method(study, algorithm, method)
    return algorithm, method


def read_verifications(study: StudyReader, algorithm: str) -> list[Verification]:
    """All that are kept, oldest first. Raises StoreError for a file that is broken."""
    files = layout.verification_files(study.root, algorithm)
    found = [Verification.from_dict(store.read_json(path)) for path in files]
    return sorted(found, key=lambda one: (one.created, one.id))


def predicted_and_actual(
    verifications: Iterable[Verification], method: str | None = None
) -> dict[str, np.ndarray]:
    """Predicted and actual mean changes of the margin over verifications.

    Args:
        method: Only what this method's scores foretold; None: all.

    Returns:
        `predicted`, `actual` float64 `[n]`, and `test`, `removed` int64 `[n]`: the test row, and
        how many were removed.
    """
    rows = [
        (outcome.predicted.mean, outcome.change, outcome.test, len(one.removed))
        for one in verifications
        if method is None or one.method == method
        for outcome in one.outcomes
        if outcome.predicted is not None
    ]
    predicted, actual, test, removed = zip(*rows, strict=True) if rows else ((), (), (), ())
    return {
        "predicted": np.array(predicted, np.float64),
        "actual": np.array(actual, np.float64),
        "test": np.array(test, np.int64),
        "removed": np.array(removed, np.int64),
    }


def agreement(predicted: np.ndarray, actual: np.ndarray) -> tuple[float, float] | None:
    """(slope through 0 of actual on predicted changes, Pearson's correlation).

    None for fewer than three, or where either does not vary.
    """
    if len(predicted) < 3 or np.ptp(predicted) == 0 or np.ptp(actual) == 0:
        return None
    slope = float(predicted @ actual / (predicted @ predicted))
    return slope, float(np.corrcoef(predicted, actual)[0, 1])


def control_of(study: StudyReader, removed: Removal) -> Removal:
    """As many other training examples of the same classes: random, but always the same ones.

    Raises:
        DataloupeError: A class has too few others.
    """
    labels = study.table("train")["label"].to_numpy()
    rows = np.array(removed)
    generator = np.random.Generator(np.random.PCG64([study.spec.seed, *removed]))
    drawn: list[int] = []
    for label in sorted(set(labels[rows])):
        number = int((labels[rows] == label).sum())
        others = np.setdiff1d(np.flatnonzero(labels == label), rows)
        if len(others) < number + 1:
            raise DataloupeError(
                f"A control takes {number:,} other training examples of class {label!r} away and "
                f"leaves one, and there are {len(others):,}: verify without a control."
            )
        # Random keys, not numpy's choice, whose draws may change from version to version.
        keys = generator.bit_generator.random_raw(len(others))
        drawn += others[np.argsort(keys, kind="stable")[:number]].tolist()
    return tuple(sorted(drawn))


# --- telling ------------------------------------------------------------------------------------


def _all_trained(
    study: StudyReader, algorithm: str, question: Question, control: Removal, seeds: int
) -> bool:
    removals = [NOTHING, question.removed, *([control] if control else [])]
    return all(
        is_trained(study, algorithm, removed, seed) for removed in removals for seed in range(seeds)
    )


def _tell(
    study: StudyReader,
    algorithm: str,
    method: str | None,
    question: Question,
    control: Removal,
    seeds: int,
) -> Verification:
    """Read the models, write the verification."""
    scores = (
        None
        if method is None
        else store.json_fingerprint(layout.search_file(study.root, algorithm, method))
    )
    fingerprint = retrained_fingerprint(study, algorithm, question.removed)
    asked = [fingerprint, method, scores, list(question.tests), seeds, list(control)]
    name = store.fingerprint_of("verification", CODE, algorithm, *asked)
    ids = study.table("train")["id"].to_numpy()
    metadata = _metadata(study, algorithm, question.removed, seeds)
    found = Verification(
        id=name,
        algorithm=algorithm,
        method=method,
        removed=list(question.removed),
        removed_ids=[str(ids[row]) for row in question.removed],
        seeds=seeds,
        outcomes=_outcomes(study, algorithm, method, question.removed, question.tests, seeds),
        control_removed=list(control),
        control=_outcomes(study, algorithm, method, control, question.tests, seeds)
        if control
        else [],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=fingerprint,
        scores=scores,
        device=metadata.pop("device"),
        versions={name: str(value) for name, value in metadata.items() if name != "seed"},
    )
    store.write_json(
        layout.verification_file(study.root, algorithm, name), found.to_dict(), fingerprint
    )
    return found


def _metadata(study: StudyReader, algorithm: str, removed: Removal, seeds: int) -> dict[str, Any]:
    fingerprint = retrained_fingerprint(study, algorithm, removed)
    return store.read_metadata(layout.retrained_file(study.root, algorithm, fingerprint, seeds - 1))


def _outcomes(
    study: StudyReader,
    algorithm: str,
    method: str | None,
    removed: Removal,
    tests: Sequence[int],
    seeds: int,
) -> list[Outcome]:
    if not tests:
        return []
    with_all, without = (
        [retrained(study, algorithm, removal, seed) for seed in range(seeds)]
        for removal in (NOTHING, removed)
    )
    table, said = study.table("test"), read_predictions(study, "test", algorithm)
    classes = np.array(study.dataset.classes, dtype=object)
    predicted = predicted_changes(study, algorithm, method, removed, tests)
    found = []
    for test, foretold in zip(tests, predicted, strict=True):
        label, was_right = str(table["label"].iloc[test]), bool(said["correct"].iloc[test])
        margins = [[float(model.margin[test]) for model in group] for group in (with_all, without)]
        names = [
            [str(classes[model.predicted[test]]) for model in group]
            for group in (with_all, without)
        ]
        flips = [sum((name == label) != was_right for name in group) for group in names]
        change, low, high = mean_change(np.array(margins[1]) - np.array(margins[0]))
        found.append(
            Outcome(
                test=int(test),
                id=str(table["id"].iloc[test]),
                label=label,
                before=str(said["predicted"].iloc[test]),
                predicted=foretold,
                with_all=margins[0],
                without=margins[1],
                classes_with=names[0],
                classes_without=names[1],
                change=change,
                low=low,
                high=high,
                flips=share(flips[1], seeds),
                flips_with=share(flips[0], seeds),
            )
        )
    return found


def predicted_changes(
    study: StudyReader, algorithm: str, method: str | None, removed: Removal, tests: Sequence[int]
) -> list[Measured | None]:
    """What the scores foretell of each test example's margin without `removed`."""
    if method is None:
        return [None] * len(tests)
    candidates = np.tile(np.array(removed, np.int64), (len(tests), 1))
    scores = read_score_matrix(study, algorithm, method).pairs(
        np.array(tests, np.int64), candidates
    )
    return [
        predict_removal(study, int(test), row, algorithm, method)
        for test, row in zip(tests, scores, strict=True)
    ]


def mean_change(changes: np.ndarray) -> tuple[float, float | None, float | None]:
    """(mean, low, high) of changes `[seeds]`: a 95 % interval by Student's t, None for one seed."""
    from scipy.special import stdtrit

    mean, free = float(np.mean(changes)), len(changes) - 1
    if free == 0:
        return mean, None, None
    reach = float(stdtrit(free, 0.975)) * float(np.std(changes, ddof=1)) / math.sqrt(len(changes))
    return mean, mean - reach, mean + reach
