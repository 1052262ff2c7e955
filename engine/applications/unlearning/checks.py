"""Checks of the parameters of an audit. Each raises an error for an invalid request."""

from __future__ import annotations

from collections.abc import Sequence

from engine.applications.unlearning.settings import GRIDS, OF_CLASSES
from engine.applications.unlearning.sources import check_source
from engine.build.retraining import check_recipe
from engine.store import layout
from engine.store.errors import DataloupeError, StoreError
from engine.study.capabilities import has, require
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader

MODELS_DEFAULT = 50
FEWEST, MOST = 4, 1000


def check_audit(
    study: StudyReader,
    algorithm: str | None,
    methods: Sequence[str],
    models: int,
    budget: float,
    source: str | None = None,
) -> str:
    """The name of the algorithm, if it can be audited in this way. Raises as `audit`."""
    check_task(study)
    algorithm = resolve_algorithm(study, algorithm)
    check_methods(study, methods, budget)
    if not FEWEST <= models <= MOST:
        raise DataloupeError(f"An audit takes {FEWEST} to {MOST:,} models, not {models:,}.")
    check_recipe(study, algorithm)
    check_scores(study, algorithm)
    if source is not None:
        check_source(study, algorithm, source)
    return algorithm


def methods_of(study: StudyReader) -> list[str]:
    """The methods that models of a study can unlearn by."""
    classes = has(study, "classes")
    return [method for method in GRIDS if classes or method not in OF_CLASSES]


def check_methods(study: StudyReader, methods: Sequence[str], budget: float) -> None:
    """Reject unknown methods, and a budget that is not a share. Raises DataloupeError."""
    if not methods:
        raise DataloupeError(f"Name a method of unlearning: {', '.join(GRIDS)}.")
    for method in methods:
        if method not in GRIDS:
            known = ", ".join(GRIDS)
            raise DataloupeError(f"Unknown unlearning method {method!r}. Methods: {known}.")
        if method not in methods_of(study):
            require(study, "classes", f"Unlearning by {method}")
    if not 0 < budget <= 1:
        raise DataloupeError(
            f"The budget is a share of a retraining: above 0 and at most 1, not {budget:g}."
        )


def check_task(study: StudyReader) -> None:
    """Reject a study without outputs that unlearning can match.

    Raises:
        MissingCapability: There are none.
    """
    require(study, "unlearning", "Unlearning")


def check_scores(study: StudyReader, algorithm: str) -> None:
    """Reject a study without such outputs or TRAK scores, which predictions need.

    Raises StoreError, or as `check_task`.
    """
    check_task(study)
    if not layout.weighting_file(study.root, algorithm).exists():
        raise StoreError(
            f"{study.root} has no scores of {algorithm} yet. `dataloupe build {study.root}` makes "
            "them."
        )
