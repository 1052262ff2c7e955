"""Why the scores of a method are not calibrated, and what would calibrate them."""

from __future__ import annotations

from engine.store import layout
from engine.study.lock import is_locked
from engine.study.methods import method_title, read_quality
from engine.study.reader import StudyReader
from engine.study.run_banks import finished_runs, wanted_runs, wants_bank


def calibration_advice(study: StudyReader, algorithm: str, method: str) -> str:
    """One or two sentences on what is missing now; empty if the method is calibrated.

    What the study already has, or a build is making, is never advised.
    """
    if algorithm in study.uploads:
        return "Uploaded checkpoints have no training recipe, so their scores cannot be calibrated."
    build = f"`dataloupe build {study.root}`"
    quality = read_quality(study, algorithm)
    if quality is not None and method in quality.methods:
        if quality.methods[method].units is not None:
            return ""
        title = method_title(study, algorithm, method)
        return (
            f"Measured on subset runs, {title} predicts outcomes no better than chance, so its "
            "scores have no unit: choose another method."
        )
    if quality is not None:
        return f"These scores were added after the others were measured: {build} measures them."
    if not wants_bank(study, algorithm):
        return (
            "Subset runs calibrate scores: add [subset_runs] with masks = 200 to "
            f"{layout.spec_file(study.root)}, then {build}."
        )
    done, wanted = len(finished_runs(study, algorithm)), len(wanted_runs(study))
    imported = layout.bank_import_file(study.root, algorithm).exists()
    runs = "" if imported or done >= wanted else f" {done:,} of {wanted:,} subset runs are done."
    if is_locked(study):
        return f"A build is running that will calibrate these scores.{runs}"
    return f"These scores are calibrated when the subset runs are measured.{runs} {build} goes on."
