"""The stages of a build, one per file.

Each stage has a `run` function that computes its missing files, and functions that return the
fingerprint of each file. Fingerprints chain: a file's fingerprint covers those of its inputs, so a
change anywhere upstream changes every fingerprint downstream.
"""

from __future__ import annotations

from engine.study.reader import StudyReader
from engine.study.run_banks import is_tuned, wants_bank

_ATTRIBUTION = ("trak", "search", "live")
_EVALUATION = ("datamodels", "removals", "quality")


def stage_groups(study: StudyReader) -> tuple[tuple[str, ...], ...]:
    """The study's stages in execution order. A group runs for all algorithms before the next one.

    Training the subset runs is the expensive part, so attribution comes before it, unless the runs
    are needed to tune TRAK. Maps come last because no other stage depends on them.
    """
    models = ("checkpoints", "predictions", "neighbours")
    algorithms = study.spec.algorithms
    if not any(wants_bank(study, algorithm) for algorithm in algorithms):
        return ("data",), (*models, *_ATTRIBUTION), ("map",)
    if any(is_tuned(study, algorithm) for algorithm in algorithms):
        return ("data",), (*models, "bank", "tuning", *_ATTRIBUTION, *_EVALUATION), ("map",)
    return ("data",), (*models, *_ATTRIBUTION), ("bank", *_EVALUATION), ("map",)


def stages_of(study: StudyReader) -> tuple[str, ...]:
    """All stages of the study in execution order."""
    return tuple(stage for group in stage_groups(study) for stage in group)
