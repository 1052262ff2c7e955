"""The stages of a build, one a file.

A stage is a `run` function that makes the files that are missing, and functions that say what each
file is made from (its fingerprint). The fingerprints chain: a file's covers the fingerprints of
what it was computed from, so a change anywhere upstream shows in every file downstream.
"""

from __future__ import annotations

from engine.study.reader import StudyReader
from engine.study.run_banks import is_tuned, wants_bank

_EXPLAIN = ("trak", "search", "live")
_JUDGE = ("datamodels", "quality")


def stage_groups(study: StudyReader) -> tuple[tuple[str, ...], ...]:
    """The study's stages in the order they run; a group is done for all algorithms before the next.

    Training on random subsets is the dear part, so predictions can be explained before; but not
    where its runs decide how they are explained. Maps come last, as nothing waits for them.
    """
    models = ("checkpoints", "predictions", "neighbours")
    algorithms = study.spec.algorithms
    if not any(wants_bank(study, algorithm) for algorithm in algorithms):
        return ("data",), (*models, *_EXPLAIN), ("map",)
    if any(is_tuned(study, algorithm) for algorithm in algorithms):
        return ("data",), (*models, "bank", "tuning", *_EXPLAIN, *_JUDGE), ("map",)
    return ("data",), (*models, *_EXPLAIN), ("bank", *_JUDGE), ("map",)


def stages_of(study: StudyReader) -> tuple[str, ...]:
    """All stages of the study in the order they run."""
    return tuple(stage for group in stage_groups(study) for stage in group)
