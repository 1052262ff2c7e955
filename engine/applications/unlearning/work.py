"""What an audit would cost, before it is begun: models to train, and all else in units of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.applications.unlearning.audit import NOTHING, retraining_cost
from engine.applications.unlearning.bank_changes import Source
from engine.applications.unlearning.changes import cost_of_changes
from engine.applications.unlearning.models import oracle_file, original_file
from engine.applications.unlearning.settings import GRIDS
from engine.applications.unlearning.settings_search import MODELS
from engine.applications.unlearning.validation import validation_set
from engine.build.retraining import Removal
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        there: Originals and oracles that are trained already.
        missing: Those that are not.
        unlearning: All that unlearning, its search and its predictions take at most, in trainings
            of one model.
    """

    there: int
    missing: int
    unlearning: float

    @property
    def trainings(self) -> float:
        """All of it, in trainings of one model; at most."""
        return self.missing + self.unlearning


def work(
    study: StudyReader,
    asked: Removal,
    methods: Sequence[str],
    models: int,
    budget: float,
    algorithm: str,
    source: Source = "trak",
) -> Work:
    """What `audit` would do. Reads which files are there, and no more."""
    methods = [method for method in methods if method != NOTHING]
    searched = [method for method in methods if len(GRIDS[method]) > 1]
    choosing = min(models, MODELS)
    files = [original_file(study, algorithm, seed) for seed in range(models)]
    files += [oracle_file(study, algorithm, asked, asked, number) for number in range(models)]
    there, wanted = sum(file.exists() for file in files), len(files)
    if searched:
        wanted += choosing
        # Which others choose takes a look at the scores; without oracles nothing was chosen yet.
        if oracle_file(study, algorithm, asked, asked, 0).exists():
            others = validation_set(study, algorithm, asked)
            files = [oracle_file(study, algorithm, asked, others, n) for n in range(choosing)]
            there += sum(file.exists() for file in files)
    unlearnings = models * len(methods) + choosing * sum(len(GRIDS[one]) for one in searched)
    foretold = 0.0
    if "matching" in methods:
        # Once for the forget set, and once for as many others that choose.
        gradients = 2 * cost_of_changes(study, algorithm, asked, asked, source)
        foretold = gradients / retraining_cost(study, algorithm)
    return Work(there, wanted - there, budget * unlearnings + foretold)
