"""What the changes of matched outputs can be predicted by, and what each needs of the study."""

from __future__ import annotations

from typing import Literal

from engine.build.retraining import check_recipe
from engine.store import layout
from engine.store.errors import DataloupeError, SpecError, StoreError
from engine.store.layout import HYBRID
from engine.study.capabilities import require
from engine.study.reader import StudyReader
from engine.study.run_banks import has_bank, read_bank_import
from engine.study.score_matrices import stored_solver

Source = Literal["hybrid", "trak", "combined", "newton", "datamodel"]
SOURCES: tuple[Source, ...] = ("hybrid", "trak", "combined", "newton", "datamodel")
FROM_BANK: tuple[Source, ...] = ("combined", "hybrid", "datamodel")
"""Sources that read the run bank."""
WITH_NEWTON: tuple[Source, ...] = ("combined", "newton")


def check_source(study: StudyReader, algorithm: str, source: str) -> None:
    """Reject a source that cannot predict the matched outputs of this study.

    Raises:
        DataloupeError: There is no such source. MissingCapability: It needs classes.
        SpecError: It needs another recipe. StoreError: There is no bank with logits.
    """
    if source not in SOURCES:
        raise DataloupeError(
            f"Changes cannot be predicted by {source!r}. Choose one of {', '.join(SOURCES)}."
        )
    if source != "trak":
        require(study, "classes", f"Changes of class logits by {source}")
    if source in WITH_NEWTON:
        _check_for_newton(study, algorithm)
    if source in FROM_BANK:
        _check_bank(study, algorithm, source)
    if source in ("combined", "hybrid"):
        _check_hybrid(study, algorithm)


def best_source(study: StudyReader, algorithm: str) -> Source:
    """The hybrid where the study can predict by it, else TRAK.

    A Newton step predicts better, but passes ten times as often over the data, so it is chosen by
    people who know how long their training is.
    """
    try:
        check_source(study, algorithm, "hybrid")
    except DataloupeError:
        return "trak"
    return "hybrid"


def _check_for_newton(study: StudyReader, algorithm: str) -> None:
    """How far training goes follows from the rates of SGD; AdamW scales each weight's own."""
    check_recipe(study, algorithm)
    if study.algorithms[algorithm].optimizer != "sgd":
        raise SpecError(
            f"The Newton step needs a model trained by SGD, and {algorithm} is trained by "
            f"{study.algorithms[algorithm].optimizer}: predict by trak."
        )


def _check_bank(study: StudyReader, algorithm: str, source: str) -> None:
    if read_bank_import(study, algorithm) or not study.spec.subset_runs.logits:
        raise StoreError(
            f"To predict class logits by {source}, the run bank of {algorithm} must keep them: "
            f"set logits = true under [subset_runs] in {layout.spec_file(study.root)} and build "
            "it again."
        )
    if not has_bank(study, algorithm):
        raise StoreError(
            f"The run bank of {algorithm} is incomplete. `dataloupe build {study.root}` "
            "finishes it."
        )


def _check_hybrid(study: StudyReader, algorithm: str) -> None:
    if not layout.method_file(study.root, algorithm, HYBRID).exists():
        raise StoreError(f"{algorithm} has no hybrid yet. `dataloupe build {study.root}` makes it.")
    if stored_solver(study, algorithm).kind == "primal":
        raise DataloupeError(
            "The hybrid of class logits needs a dual solver, and this study has the primal one: "
            "predict by trak or datamodel."
        )
