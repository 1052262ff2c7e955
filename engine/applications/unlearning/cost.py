"""The cost of an audit before it starts, in trainings of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.applications.unlearning.oracles import oracles, originals
from engine.applications.unlearning.output_changes import cost_of_changes
from engine.applications.unlearning.settings import UNCHANGED
from engine.applications.unlearning.settings_search import MODELS, grid_of
from engine.applications.unlearning.sources import Source
from engine.applications.unlearning.validation import validation_set
from engine.build.retraining import Removal, is_trained
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class AuditCost:
    """Work of an audit.

    Attributes:
        there: Number of originals and oracles that are already trained.
        missing: Number of those that are not.
        unlearning: Upper bound on all unlearning, its search and its predictions, in trainings of
            one model.
    """

    there: int
    missing: int
    unlearning: float

    @property
    def trainings(self) -> float:
        """Upper bound on the total, in trainings of one model."""
        return self.missing + self.unlearning


def retraining_cost(study: StudyReader, algorithm: str) -> int:
    """Example-gradients of training a model."""
    return study.spec.algorithms[algorithm].epochs * study.dataset.n_train


def audit_cost(
    study: StudyReader,
    forget: Removal,
    methods: Sequence[str],
    models: int,
    budget: float,
    algorithm: str,
    source: Source = "trak",
) -> AuditCost:
    """The cost of `audit`. Only looks at the files in the study."""
    methods = [method for method in methods if method != UNCHANGED]
    searched = [method for method in methods if len(grid_of(study, method)) > 1]
    choosing = min(models, MODELS)
    own = oracles(study, forget, forget, models)
    wanted = [*originals(models), *own]
    total = len(wanted)
    if searched:
        total += choosing
        # Choosing the validation set reads scores. Its oracles are trained after the forget set's.
        if is_trained(study, algorithm, own[0]):
            validation = validation_set(study, algorithm, forget)
            wanted += oracles(study, forget, validation, choosing)
    there = sum(is_trained(study, algorithm, model) for model in wanted)
    unlearnings = models * len(methods) + choosing * sum(
        len(grid_of(study, one)) for one in searched
    )
    predictions = 0.0
    if "matching" in methods:
        # Once for the forget set, and once for the validation set.
        gradients = 2 * cost_of_changes(study, algorithm, forget, forget, source)
        predictions = gradients / retraining_cost(study, algorithm)
    return AuditCost(there, total - there, budget * unlearnings + predictions)
