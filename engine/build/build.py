"""Build a study: run every stage that has missing files.

A file that exists is complete (see `engine.store`), so a build that was interrupted, by Ctrl-C or a
power cut, resumes where it stopped. Files made from a different spec are refused by name, or
removed and recomputed on request (`rebuild`).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from engine import store
from engine.build.model_checks import check_models
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
    removals,
    search,
    stage_groups,
    stages_of,
    trak,
    tuning,
)
from engine.running.cluster import connect
from engine.running.processes import default_workers, keeping_workers, pick_device
from engine.store import layout
from engine.store.errors import SpecError, StaleError, StoreError
from engine.store.layout import FORMAT
from engine.store.records import Progress
from engine.store.spec import load_spec
from engine.study.lock import locked
from engine.study.methods import imported_methods
from engine.study.reader import StudyReader
from engine.study.trust import require_trust

_ALGORITHM_STAGES = {
    "checkpoints": checkpoints,
    "predictions": predictions,
    "neighbours": neighbours,
    "bank": bank,
    "tuning": tuning,
    "trak": trak,
    "search": search,
    "live": live,
    "datamodels": datamodels,
    "removals": removals,
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
    """Compute everything that study.toml requests and that does not exist yet.

    Args:
        device: `auto`, `cpu` or `cuda`.
        workers: Number of worker processes; None: as many as the device can feed; 0: run in this
            process.
        rebuild: A stage to recompute. Later stages are recomputed where their files no longer
            match.
        on_progress: Called with a stage's progress after each finished job.
        ray: Address of a Ray cluster that runs the jobs (see `engine.running.cluster.connect`);
            None: this machine.

    Raises:
        SpecError, DataError, CheckpointError: The user's spec, data or weights are invalid.
        UntrustedCode: The study names code that this machine's user has not trusted.
        StaleError: Existing files were made from a different spec; nothing was changed.
        StoreError: A file is broken, the disk is full, or another build is running.
        InterruptedBuild: Ctrl-C. Finished work is kept.
    """
    stages = stages_of(study)
    if rebuild is not None and rebuild not in stages:
        raise SpecError(
            f"There is no stage {rebuild!r} to rebuild; stages are {', '.join(stages)}."
        )
    require_trust(study)
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
        # The nodes of a cluster run in other working directories, so the path must be absolute.
        study = StudyReader(study.root.resolve(), study.spec)
        with connect(ray, study.root, device, workers) as cluster:
            workers = default_workers(cluster.device) if workers is None else workers
            _build(Run(study, cluster.device, workers, report, cluster), rebuild)


def _build(run: Run, rebuild: str | None) -> None:
    study = run.study
    stages = stages_of(study)
    replaceable = stages[stages.index(rebuild) + 1 :] if rebuild else ()
    with writing(study), keeping_workers(run.device):
        if rebuild:
            _remove(study, rebuild)
        _run_stage(run, "data", data.run, replaceable)
        _check_imports(study)
        check_models(run)
        for group in stage_groups(study)[1:]:
            for algorithm in study.spec.algorithms:
                for stage in group:
                    function = partial(_ALGORITHM_STAGES[stage].run, algorithm=algorithm)
                    _run_stage(run, stage, function, replaceable)
        store.remove_leftovers(study.root)  # of workers that died
        _record_spec(study)


def build_data(study: StudyReader, on_progress: Callable[[Progress], None] | None = None) -> None:
    """Run the data stage only, which is all that an import needs.

    Takes and raises the same as `build`.
    """
    run = Run(study, "cpu", 0, on_progress or (lambda progress: None))
    with writing(study):
        _run_stage(run, "data", data.run, ())


def build_checkpoints(
    study: StudyReader,
    device: str = "auto",
    workers: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> None:
    """Read the data and train the checkpoints only, which is all that making examples needs.

    Takes and raises the same as `build`.
    """
    require_trust(study)
    device = pick_device(device)
    workers = default_workers(device) if workers is None else workers
    run = Run(study, device, workers, on_progress or (lambda progress: None))
    with writing(study), keeping_workers(device):
        _run_stage(run, "data", data.run, ())
        check_models(run)
        for algorithm in study.spec.algorithms:
            function = partial(checkpoints.run, algorithm=algorithm)
            _run_stage(run, "checkpoints", function, ())


@contextlib.contextmanager
def writing(study: StudyReader) -> Iterator[None]:
    """Lock the study for writing, record its format, and remove leftovers of killed processes."""
    with locked(study):
        store.remove_leftovers(study.root)
        if not layout.format_file(study.root).exists():
            _record_spec(study)
        yield


def _record_spec(study: StudyReader) -> None:
    """Keep study.toml as it is built, so that `doctor` can tell what has changed in it since."""
    path, spec = layout.format_file(study.root), layout.spec_file(study.root)
    content = {"format": FORMAT, "spec": spec.read_text(encoding="utf-8")}
    unchanged = path.exists() and store.read_json(path) == content
    if not unchanged and load_spec(spec) == study.spec:  # not edited while this runs
        store.write_json(path, content, fingerprint="")


def _run_stage(
    run: Run, stage: str, function: Callable[[Run], None], replaceable: Sequence[str]
) -> None:
    """Run a stage. Stale files are removed and recomputed if the stage is in `replaceable`."""
    while True:
        try:
            return function(run)
        except StaleError as error:
            if stage in replaceable:
                for path in error.paths:
                    path.unlink()
                continue
            raise StaleError(
                f"{error} Undo the change, or run `dataloupe build {run.study.root} --rebuild "
                f"{stage}`, which recomputes this stage and the later ones that depend on it.",
                *error.paths,
            ) from error


def _check_imports(study: StudyReader) -> None:
    """Refuse imported scores of a different dataset: a build cannot recompute them."""
    for algorithm in study.spec.algorithms:
        for method, about in imported_methods(study, algorithm).items():
            if about.dataset != study.dataset.fingerprint:
                raise StoreError(
                    f"The imported scores {method!r} of {algorithm} were made for different data "
                    f"than {study.root} has now. Import them again with --replace, or remove them: "
                    f"dataloupe methods {study.root} --remove {method} --algorithm {algorithm}"
                )


def _remove(study: StudyReader, stage: str) -> None:
    for algorithm in study.spec.algorithms:
        for folder in layout.stage_folders(study.root, stage, algorithm):
            shutil.rmtree(folder, ignore_errors=True)
