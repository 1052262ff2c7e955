"""Build a study: run every stage that has something missing.

Present files are complete (see `engine.store`), so a build that was interrupted, by Ctrl-C or by a
power cut, goes on where it was. Files that were made from another spec are refused by name, or
removed and made again when asked (`rebuild`).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator

from engine import store
from engine.errors import SpecError, StaleError
from engine.execution import default_workers, pick_device
from engine.stages import STAGES, checkpoints, data, search, trak
from engine.stages.run import Run
from engine.study import FORMAT, Progress, Study


def build(
    study: Study,
    device: str = "auto",
    workers: int | None = None,
    rebuild: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Compute everything that study.toml asks for and that is not there yet.

    Args:
        device: `auto`, `cpu` or `cuda`.
        workers: Worker processes; None: as many as the device can feed, 0: none, work here.
        rebuild: Remove this stage's files and those of all later stages first.
        on_progress: Called with a stage's progress after each finished piece of work.

    Raises:
        SpecError, DataError, CheckpointError: What the user gave cannot be used.
        StaleError: Files there were made from another spec; nothing was changed.
        StoreError: A file is broken, the disk is full, or another build is running.
        InterruptedBuild: Ctrl-C. What is finished is kept.
    """
    if rebuild is not None and rebuild not in STAGES:
        raise SpecError(
            f"There is no stage {rebuild!r} to rebuild; stages are {', '.join(STAGES)}."
        )
    device = pick_device(device)
    run = Run(
        study=study,
        device=device,
        workers=default_workers(device) if workers is None else workers,
        report=on_progress or (lambda progress: None),
    )
    with study.locked():
        store.remove_leftovers(study.root)
        if not study.format_file.exists():
            store.write_json(study.format_file, {"format": FORMAT}, made_from="")
        if rebuild is not None:
            remove_from(study, rebuild)
        with _stage(study, "data"):
            data.run(run)
        for algorithm in study.spec.algorithms:
            with _stage(study, "checkpoints"):
                checkpoints.run(run, algorithm)
            with _stage(study, "trak"):
                trak.run(run, algorithm)
            with _stage(study, "search"):
                search.run(run, algorithm)


@contextlib.contextmanager
def _stage(study: Study, stage: str) -> Iterator[None]:
    """Add to a StaleError what can be done about it."""
    try:
        yield
    except StaleError as error:
        raise StaleError(
            f"{error} Put study.toml back as it was, or run `dataloupe build {study.root} "
            f"--rebuild {stage}` to compute this stage and the later ones again."
        ) from error


def remove_from(study: Study, stage: str) -> None:
    """Remove the files of `stage` and of every stage after it."""
    remaining = STAGES[STAGES.index(stage) :]
    if "data" in remaining:
        shutil.rmtree(study.dataset_file.parent, ignore_errors=True)
        vars(study).pop("dataset", None)
    for algorithm in study.spec.algorithms:
        for name in remaining:
            for folder in study.stage_folders(name, algorithm):
                shutil.rmtree(folder, ignore_errors=True)
