"""Verify the effect of a removal by retraining, and compare it with the prediction from scores.

    verify(study, ["train-17", "train-99"], tests=["test-3"]).outcomes[0].flips

Every verification is kept in the study, so that predicted and actual changes can be compared over
all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from engine import store
from engine.applications.verification.control import control_of
from engine.applications.verification.outcomes import outcomes_of
from engine.applications.verification.record import Verification
from engine.build.retraining import (
    NOTHING,
    Removal,
    RetrainedModel,
    check_recipe,
    is_trained,
    model_file,
    removal_of,
    retrain,
    retrained_fingerprint,
)
from engine.running.progress import Report
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.study.examples import FILE, read_texts_of
from engine.study.methods import ranked_methods
from engine.study.models import has_predictions
from engine.study.names import resolve_algorithm, resolve_method, resolve_rows
from engine.study.reader import StudyReader

CODE = 2
"""Increment when the same models would give a different verification."""
MOST_SEEDS = 100


@dataclass(frozen=True)
class Request:
    """A checked request for a verification.

    Attributes:
        removed: Training rows to leave out.
        tests: Test rows whose outcomes are wanted.
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
    """Retrain without some training examples and keep the result.

    The models with all data are the study's checkpoints, and more are trained if there are too
    few. A model without the removal set is compared with the model of the same seed.

    Args:
        removed: Rows or ids of training examples.
        tests: Rows or ids of the test examples whose outcomes are wanted.
        seeds: Number of models with all data, and of models without the removal set.
        method: Whose scores predict the changes; None: the default.
        control: Also retrain without the same number of random training examples of each class.
        device: As for `build`.
        workers: As for `build`.
        report: Called as models are done.

    Raises:
        DataloupeError: No such example; nothing, a whole class or everything is removed; too few or
            too many seeds; or a training failed.
        SpecError: The algorithm has no recipe.
        StoreError: Another process writes to the study, or the disk is full.
        InterruptedBuild: Ctrl-C. What is finished is kept.
    """
    request = request_of(study, removed, tests)
    (found,) = verify_all(
        study,
        [request],
        seeds=seeds,
        algorithm=algorithm,
        method=method,
        control=control,
        device=device,
        workers=workers,
        report=report,
    )
    return found


def request_of(
    study: StudyReader, removed: Iterable[int | str], tests: Iterable[int | str]
) -> Request:
    """A checked request for a removal set and test examples. Raises as `verify`."""
    rows = resolve_rows(study, "test", list(tests)).tolist()
    return Request(removal_of(study, removed), tuple(dict.fromkeys(rows)))


def verify_all(
    study: StudyReader,
    requests: Sequence[Request],
    *,
    seeds: int = 5,
    algorithm: str | None = None,
    method: str | None = None,
    control: bool = False,
    device: str = "auto",
    workers: int | None = None,
    report: Report | None = None,
) -> list[Verification]:
    """Verify several removals with one set of workers. Each is kept as soon as it is done.

    Args and errors as for `verify`.
    """
    algorithm, method = check(study, algorithm, method, seeds)
    controls = [control_of(study, one.removed) if control else NOTHING for one in requests]
    removals = [NOTHING]
    for request, control_rows in zip(requests, controls, strict=True):
        removals += [request.removed, *([control_rows] if control else [])]
    on_progress = report or (lambda done, total, what: None)
    found: dict[int, Verification] = {}

    def conclude(removed: Removal, done: int, total: int) -> None:
        on_progress(done, total, f"without {len(removed):,}" if removed else "with all data")
        for number, (request, control_rows) in enumerate(zip(requests, controls, strict=True)):
            concerns = removed in (NOTHING, request.removed, control_rows) and number not in found
            if concerns and _all_trained(study, algorithm, request, control_rows, seeds):
                found[number] = _verification(
                    study, algorithm, method, request, control_rows, seeds
                )

    retrain(study, algorithm, removals, seeds, device, workers, conclude)
    return [found[number] for number in range(len(requests))]


def check(
    study: StudyReader, algorithm: str | None, method: str | None, seeds: int
) -> tuple[str, str | None]:
    """(algorithm, method), by name, if removals can be verified for them. Raises as `verify`."""
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


def _all_trained(
    study: StudyReader, algorithm: str, request: Request, control: Removal, seeds: int
) -> bool:
    removals = [NOTHING, request.removed, *([control] if control else [])]
    return all(
        is_trained(study, algorithm, RetrainedModel(removed, seed))
        for removed in removals
        for seed in range(seeds)
    )


def _verification(
    study: StudyReader,
    algorithm: str,
    method: str | None,
    request: Request,
    control: Removal,
    seeds: int,
) -> Verification:
    """Read the models, and keep the verification."""
    scores = (
        None
        if method is None
        else store.json_fingerprint(layout.search_file(study.root, algorithm, method))
    )
    fingerprint = retrained_fingerprint(study, algorithm, request.removed)
    parts = [fingerprint, method, scores, list(request.tests), seeds, list(control)]
    name = store.fingerprint_of("verification", CODE, algorithm, *parts)
    ids = study.table("train")["id"].to_numpy()
    metadata = _metadata(study, algorithm, request.removed, seeds)
    found = Verification(
        id=name,
        algorithm=algorithm,
        method=method,
        removed=list(request.removed),
        removed_ids=[str(ids[row]) for row in request.removed],
        seeds=seeds,
        outcomes=outcomes_of(study, algorithm, method, request.removed, request.tests, seeds),
        control_removed=list(control),
        control=outcomes_of(study, algorithm, method, control, request.tests, seeds)
        if control
        else [],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=fingerprint,
        scores=scores,
        device=metadata.pop("device"),
        versions={name: str(value) for name, value in metadata.items() if name != "seed"},
        removed_files=read_texts_of(study, "train", FILE, request.removed),
    )
    store.write_json(
        layout.verification_file(study.root, algorithm, name), found.to_dict(), fingerprint
    )
    return found


def _metadata(study: StudyReader, algorithm: str, removed: Removal, seeds: int) -> dict[str, Any]:
    return store.read_metadata(model_file(study, algorithm, removed, seeds - 1))
