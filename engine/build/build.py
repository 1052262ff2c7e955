"""Build a study: run every stage that has something missing.

Present files are complete (see `engine.store`), so a build that was interrupted, by Ctrl-C or by a
power cut, goes on where it was. Files that were made from another spec are refused by name, or
removed and made again when asked (`rebuild`).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from engine import store
from engine.build.run import Run
from engine.build.stages import (
    bank,
    checkpoints,
    data,
    datamodels,
    live,
    map,
    neighbours,
    predictions,
    quality,
    search,
    stage_groups,
    stages_of,
    trak,
    tuning,
)
from engine.running.cluster import connect
from engine.running.processes import default_workers, pick_device
from engine.store import layout
from engine.store.errors import SpecError, StaleError, StoreError
from engine.store.layout import FORMAT
from engine.store.records import Progress
from engine.study.lock import locked
from engine.study.methods import imported_methods
from engine.study.reader import StudyReader

_OF_AN_ALGORITHM = {
    "checkpoints": checkpoints,
    "predictions": predictions,
    "neighbours": neighbours,
    "bank": bank,
    "tuning": tuning,
    "trak": trak,
    "search": search,
    "live": live,
    "datamodels": datamodels,
    "quality": quality,
    "map": map,
}


def build(
    study: StudyReader,
    device: str = "auto",
    workers: int | None = None,
    rebuild: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    ray: str | None = None,
) -> None:
    """Compute everything that study.toml asks for and that is not there yet.

    Args:
        device: `auto`, `cpu` or `cuda`.
        workers: Worker processes; None: as many as the device can feed, 0: none, work here.
        rebuild: Make this stage again, and of the later ones what no longer fits.
        on_progress: Called with a stage's progress after each finished piece of work.
        ray: Address of a Ray cluster whose nodes do the work (see
        `engine.running.cluster.connect`); None:
            this machine does.

    Raises:
        SpecError, DataError, CheckpointError: What the user gave cannot be used.
        StaleError: Files there were made from another spec; nothing was changed.
        StoreError: A file is broken, the disk is full, or another build is running.
        InterruptedBuild: Ctrl-C. What is finished is kept.
    """
    stages = stages_of(study)
    if rebuild is not None and rebuild not in stages:
        raise SpecError(
            f"There is no stage {rebuild!r} to rebuild; stages are {', '.join(stages)}."
        )
    for algorithm in study.spec.algorithms:
        bank.check_recipe(study, algorithm)
    if rebuild == "data":
        vars(study).pop("dataset", None)
    report = on_progress or (lambda progress: None)
    if ray is None:
        device = pick_device(device)
        workers = default_workers(device) if workers is None else workers
        _build(Run(study, device, workers, report), rebuild)
    else:
        study = StudyReader(
            study.root.resolve(), study.spec
        )  # nodes have working folders of their own
        with connect(ray, study.root, device, workers) as cluster:
            workers = default_workers(cluster.device) if workers is None else workers
            _build(Run(study, cluster.device, workers, report, cluster), rebuild)


def _build(run: Run, rebuild: str | None) -> None:
    study = run.study
    stages = stages_of(study)
    replacing = stages[stages.index(rebuild) + 1 :] if rebuild else ()
    with writing(study):
        if rebuild:
            _remove(study, rebuild)
        _run_stage(run, "data", data.run, replacing)
        _check_imports(study)
        for group in stage_groups(study)[1:]:
            for algorithm in study.spec.algorithms:
                for stage in group:
                    function = partial(_OF_AN_ALGORITHM[stage].run, algorithm=algorithm)
                    _run_stage(run, stage, function, replacing)
        store.remove_leftovers(study.root)  # of workers that died


def build_data(study: StudyReader, on_progress: Callable[[Progress], None] | None = None) -> None:
    """Read, check and encode the dataset, and nothing else: all that imported scores need.

    Args and errors as for `build`.
    """
    run = Run(study, "cpu", 0, on_progress or (lambda progress: None))
    with writing(study):
        _run_stage(run, "data", data.run, ())


@contextlib.contextmanager
def writing(study: StudyReader) -> Iterator[None]:
    """Hold the study for writing, mark its format, and clear what a killed process left."""
    with locked(study):
        store.remove_leftovers(study.root)
        if not layout.format_file(study.root).exists():
            store.write_json(layout.format_file(study.root), {"format": FORMAT}, fingerprint="")
        yield


def _run_stage(
    run: Run, stage: str, function: Callable[[Run], None], replacing: Sequence[str]
) -> None:
    """Run a stage; of the stages in `replacing`, files that no longer fit are made again."""
    while True:
        try:
            return function(run)
        except StaleError as error:
            if stage in replacing:
                for path in error.paths:
                    path.unlink()
                continue
            raise StaleError(
                f"{error} Put study.toml back as it was, or run `dataloupe build "
                f"{run.study.root} --rebuild {stage}`: it makes this stage again, and of the later "
                "ones what no longer fits.",
                *error.paths,
            ) from error


def _check_imports(study: StudyReader) -> None:
    """Refuse imported scores that belong to other data: they cannot be made again here."""
    for algorithm in study.spec.algorithms:
        for method, about in imported_methods(study, algorithm).items():
            if about.dataset != study.dataset.fingerprint:
                raise StoreError(
                    f"The imported scores {method!r} of {algorithm} belong to other data than "
                    f"{study.root} has now. Import them again with --replace, or remove them: "
                    f"dataloupe methods {study.root} --remove {method} --algorithm {algorithm}"
                )


def _remove(study: StudyReader, stage: str) -> None:
    for algorithm in study.spec.algorithms:
        for folder in layout.stage_folders(study.root, stage, algorithm):
            shutil.rmtree(folder, ignore_errors=True)
