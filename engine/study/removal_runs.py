"""Removal runs: models trained on all the data but planned removals, and their outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine import store
from engine.attribution.evaluation.removal_plan import PlannedRemoval, plan_removal
from engine.store import layout
from engine.store.layout import DATAMODEL
from engine.store.spec import PARTS
from engine.study.groups import read_group_numbers
from engine.study.methods import ranked_methods
from engine.study.rankings import read_top
from engine.study.reader import StudyReader
from engine.study.run_banks import wants_bank


@dataclass(frozen=True)
class RemovalRun:
    """One model without some training examples, beside one with all.

    Attributes:
        removed: Training rows left out, `[k]`.
        targets: Test rows that the removal was planned for.
        change: Output without them minus output with all, float64 `[n_test]`.
    """

    removed: np.ndarray
    targets: np.ndarray
    change: np.ndarray


def wanted_removals(study: StudyReader, algorithm: str) -> int:
    """Number of removal runs of the algorithm: by default, as many as there are test masks."""
    spec = study.spec.algorithms.get(algorithm)
    if spec is None or not wants_bank(study, algorithm):
        return 0
    if spec.weights and "epochs" not in spec.model_fields_set:
        return 0
    runs = study.spec.subset_runs
    return runs.masks // len(PARTS) if runs.removals is None else runs.removals


def plan_removals(study: StudyReader, algorithm: str) -> list[PlannedRemoval]:
    """The planned removals, from the rankings of the algorithm's methods in turn.

    A datamodel alone is left out: its ranking has little to say where runs are few.
    """
    ranked = sorted(ranked_methods(study, algorithm))
    methods = [method for method in ranked if method != DATAMODEL] or ranked
    groups = read_group_numbers(study, "train")
    supporters = [
        np.asarray(read_top(study, algorithm, method)["support_index"]) for method in methods
    ]
    return [
        plan_removal(supporters[number % len(methods)], groups, study.spec.seed, number)
        for number in range(wanted_removals(study, algorithm))
    ]


def removal_seed(study: StudyReader, algorithm: str, number: int) -> int:
    """Number of the study's seed that a removal run is trained with: that of a checkpoint."""
    return number % study.checkpoints(algorithm)


def finished_removals(study: StudyReader, algorithm: str) -> int:
    """How many of the wanted removal runs are finished."""
    return sum(
        layout.removal_run_file(study.root, algorithm, number).exists()
        for number in range(wanted_removals(study, algorithm))
    )


def read_removal_runs(study: StudyReader, algorithm: str) -> list[RemovalRun]:
    """All removal runs that removed anything.

    A run is compared with the checkpoint of the same seed, or with the mean of all checkpoints if
    they are files that the study did not train.
    """
    spec = study.spec.algorithms[algorithm]
    checkpoints = [
        np.asarray(
            store.read_tensors(layout.outputs_file(study.root, algorithm, n, "test"))["output"],
            np.float64,
        )
        for n in range(study.checkpoints(algorithm))
    ]
    mean = np.mean(checkpoints, axis=0)
    found = []
    for number in range(wanted_removals(study, algorithm)):
        shard = store.read_tensors(layout.removal_run_file(study.root, algorithm, number))
        before = mean if spec.weights else checkpoints[removal_seed(study, algorithm, number)]
        if len(shard["removed"]):
            found.append(RemovalRun(shard["removed"], shard["targets"], shard["output"] - before))
    return found
