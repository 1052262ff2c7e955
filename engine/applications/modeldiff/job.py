"""Jobs of the queue that compare algorithms and test hypotheses.

A comparison first computes the missing results of an uploaded algorithm. An upload is an algorithm
with its own weights, so the stages of a build make its outputs, predictions, scores and ranking, in
the same files as for any algorithm.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine import store
from engine.applications.modeldiff.changed_examples import check_names
from engine.applications.modeldiff.comparison import compare, read_comparison, side
from engine.applications.modeldiff.hypothesis import INTENSITIES, try_all
from engine.applications.modeldiff.transformations import texture_of
from engine.build.build import writing
from engine.build.run import Run
from engine.build.stages import checkpoints, predictions, search, trak
from engine.exchange.uploads.keeping import remove_results
from engine.running.processes import default_workers, keeping_workers, pick_device
from engine.running.progress import Report
from engine.store import layout
from engine.store.errors import DataloupeError, InterruptedBuild, StaleError, UploadError
from engine.store.records import Progress
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader

_STAGES: dict[str, tuple[str, Callable[[Run, str], None]]] = {
    "checkpoints": ("Running the uploaded models", checkpoints.run),
    "predictions": ("Averaging their predictions", predictions.run),
    "trak": ("Attributing their predictions", trak.run),
    "search": ("Ranking training examples", search.run),
}


def check_job(study: StudyReader, parameters: dict[str, Any]) -> dict[str, Any]:
    """Complete parameters of `run_job`.

    Raises:
        DataloupeError: There is no such algorithm, it has no scores, or the two cannot be compared.
    """
    found: dict[str, Any] = {"directions": 5, "device": "auto", "workers": None}
    found |= {key: value for key, value in parameters.items() if value is not None}
    for key in ("a", "b"):
        found[key] = resolve_algorithm(study, parameters.get(key))
        if found[key] not in study.uploads:
            found[f"method_{key}"] = side(study, found[key], found.get(f"method_{key}")).method
    if found["a"] == found["b"] and found.get("method_a") == found.get("method_b"):
        raise DataloupeError(
            f"{found['a']} cannot be compared with itself. Choose a different algorithm."
        )
    return found


def run_job(study: StudyReader, parameters: dict[str, Any], report: Report) -> dict[str, Any]:
    """Compare two algorithms, after computing the missing results of uploaded ones.

    Args:
        parameters: `a` and `b`, names of algorithms or ids of uploads; optionally `method_a`,
            `method_b`, `directions` (number for each side), `device` and `workers`.
        report: Called with (done, total, what is being done).

    Returns:
        `comparison`, its id.

    Raises:
        DataloupeError: There is no such algorithm, or it has no scores.
    """
    a, b = resolve_algorithm(study, parameters["a"]), resolve_algorithm(study, parameters["b"])
    device, workers = parameters.get("device"), parameters.get("workers")
    with _unless_deleted(study, (a, b), report) as checked_report:
        for algorithm in (a, b):
            if algorithm in study.uploads:
                compute(study, algorithm, checked_report, device, workers)
        sides = (
            side(study, a, parameters.get("method_a")),
            side(study, b, parameters.get("method_b")),
        )
        found = compare(study, *sides, parameters.get("directions") or 5, checked_report)
    return {"comparison": found}


@contextlib.contextmanager
def _unless_deleted(
    study: StudyReader, algorithms: Sequence[str], report: Report, *made: Path
) -> Iterator[Report]:
    """Stop work on uploads as soon as one of them is deleted, which anyone can do.

    Yields a `report` that raises if an upload is gone. Then all its results and the files `made`
    are removed.

    Raises:
        UploadError: An upload was deleted.
    """
    names = {one: study.uploads[one].name for one in algorithms if one in study.uploads}

    def gone() -> list[str]:
        return [upload for upload in names if not layout.upload_file(study.root, upload).exists()]

    def checked_report(done: int, total: int, what: str) -> None:
        if gone():
            raise _deleted(names[gone()[0]])
        report(done, total, what)

    try:
        yield checked_report
    except Exception as error:  # a missing file can fail anywhere
        if gone():
            raise _deleted(names[gone()[0]]) from error
        raise
    finally:
        for upload in gone():
            remove_results(study, upload)
            for path in made:
                path.unlink(missing_ok=True)
    if gone():
        raise _deleted(names[gone()[0]])


def _deleted(name: str) -> UploadError:
    return UploadError(f"“{name}” was deleted meanwhile, so no results are kept.")


def compute(
    study: StudyReader,
    upload: str,
    report: Report,
    device: str | None = None,
    workers: int | None = None,
) -> None:
    """Compute the missing predictions and scores of an upload.

    Raises:
        UploadError: It cannot be attributed, because its outputs or its gradients are not finite.
            Nothing that was computed of it is kept.
    """
    device = pick_device(device or "auto")
    workers = default_workers(device) if workers is None else workers
    with writing(study), keeping_workers(device):
        for what, stage in _STAGES.values():

            def on_progress(progress: Progress, what: str = what) -> None:
                report(progress.done, progress.total, what)

            try:
                stage(Run(study, device, workers, on_progress), upload)
            except (InterruptedBuild, StaleError):
                raise
            except DataloupeError as error:
                name = study.uploads[upload].name if upload in study.uploads else upload
                remove_results(study, upload)
                raise UploadError(f"“{name}” cannot be compared: {error}") from error


def check_hypothesis(study: StudyReader, parameters: dict[str, Any]) -> dict[str, Any]:
    """Complete parameters of `run_hypothesis`. Raises DataloupeError if they are invalid."""
    read_comparison(study, parameters["comparison"])
    found: dict[str, Any] = {
        "names": None,
        "options": {},
        "rows": None,
        "intensities": list(INTENSITIES),
    }
    found |= parameters
    check_names(study, found["names"] or [])
    return found


def run_hypothesis(
    study: StudyReader, parameters: dict[str, Any], report: Report
) -> dict[str, Any]:
    """Transform test examples and keep the effects on both algorithms, with the comparison.

    Args:
        parameters: `comparison`, its id; `names` of transformations (None: all that apply); their
            `options` by name, with `texture` a picture file in base64; `intensities`; test `rows`
            (None: all).

    Returns:
        `hypothesis`, its name, for `layout.hypothesis_file`.
    """
    parameters = check_hypothesis(study, parameters)
    name = store.fingerprint_of("hypothesis", parameters)
    path = layout.hypothesis_file(study.root, parameters["comparison"], name)
    if path.exists():
        return {"hypothesis": name}
    about = read_comparison(study, parameters["comparison"])
    options = {name: dict(given) for name, given in parameters["options"].items()}
    if isinstance(content := options.get("texture", {}).get("texture"), str):
        channels, height, width = study.dataset.encoding["shape"]
        picture = base64.b64decode(content)
        options["texture"]["texture"] = texture_of(picture, (channels, height, width))
    a, b = (about[key]["algorithm"] for key in ("a", "b"))
    with _unless_deleted(study, (a, b), report, path) as checked_report:
        tested = try_all(
            study,
            a,
            b,
            parameters["intensities"],
            parameters["rows"],
            options,
            checked_report,
            parameters["names"],
        )
        content = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": parameters["rows"],
            "intensities": parameters["intensities"],
            "tested": [one.to_dict() for one in tested],
        }
        store.write_json(path, content, parameters["comparison"])
    return {"hypothesis": name}
