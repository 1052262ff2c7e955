"""Are hostile uploads rejected, does any run code or hang, and how long do directions take?

The attack corpus of tests/builders/hostile_uploads.py is passed to `accept` one file at a time,
with a worker that has the server's limits. A file counts as hung after ten seconds.

*Upload to directions*: one checkpoint, the demo's CNN trained with augmentation, is uploaded to a
copy of the demo as the page does it: a new worker checks and stores it, then comes the quick
report, and a job in the queue compares it, all in new processes. The time ends when the directions
are written.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._report import log, report
from benchmarks._study import demo
from engine.api import Study
from engine.applications.modeldiff.comparison import read_comparison
from engine.build.build import build_data, writing
from engine.build.run import Run
from engine.build.stages import checkpoints
from engine.data.templates import spec_from_template
from engine.exchange.uploads.keeping import Given, accept, trial_worker
from engine.exchange.uploads.report import Request, quick_report
from engine.running.jobs import queue
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.store.records import Progress
from tests.builders.hostile_uploads import fitting_weights, make_corpus, mlp_shapes

SPEC = """\
name = "Uploads"
[data]
source = "fashion-mnist"
train_limit = 500
test_limit = 100
[algorithms.mlp]
architecture = "mlp"
"""
HUNG_SECONDS = 10.0


def measure() -> dict[str, Any]:
    return {**attacks(), **until_directions()}


def attacks() -> dict[str, Any]:
    """Upload the entire corpus."""
    with tempfile.TemporaryDirectory(prefix="dataloupe-uploads-") as name:
        folder = Path(name)
        study = Study.create(folder / "study", SPEC)
        build_data(study)
        canary = folder / "canary"
        corpus = make_corpus(folder / "corpus", fitting_weights(mlp_shapes(784, 32, 10)), canary)
        before = files_of(study)
        worker = trial_worker(study)
        refused, clear, seconds = 0, 0, []
        for attack in corpus:
            start = time.perf_counter()
            with attack.path.open("rb") as file:
                try:
                    accept(study, [Given(attack.name, file)], worker=worker)
                    log(f"ACCEPTED: {attack.path.name}")
                except DataloupeError as error:
                    refused += 1
                    clear += bool(re.search(attack.says, str(error)))
            seconds.append(time.perf_counter() - start)
        peaks = {"server": peak_mib("self"), "worker": peak_mib(str(worker.pid))}
        worker.end()
        return {
            "files": len(corpus),
            "refused": refused,
            "refused_with_the_right_reason": clear,
            "executed": int(canary.exists()),
            "hung": sum(second > HUNG_SECONDS for second in seconds),
            "slowest_seconds": round(max(seconds), 2),
            "files_left_behind": len(files_of(study) - before - {study.root / "uploads/.lock"}),
            "peak_mib": peaks,
        }


def until_directions() -> dict[str, Any]:
    """Seconds from one checkpoint to the distinguishing directions of the demo."""
    with tempfile.TemporaryDirectory(prefix="dataloupe-directions-") as name:
        folder = Path(name)
        shutil.copytree(demo().root, folder / "demo")
        study = Study.open(folder / "demo")
        checkpoint = train_augmented(folder / "augmented")
        log("uploading one checkpoint")
        (against,) = study.spec.algorithms
        start = time.perf_counter()
        worker = trial_worker(study)
        with checkpoint.open("rb") as file:
            upload = accept(study, [Given(checkpoint.name, file)], worker=worker)
        kept = time.perf_counter()
        request = Request(study.root, upload.id, against)
        agreement = worker.call(quick_report, request, HUNG_SECONDS).agreement
        reported = time.perf_counter()
        number = queue.submit(study, "compare", {"a": against, "b": upload.id})
        while queue.job(study.root, number).active:
            time.sleep(0.05)
        compared = time.perf_counter()
        worker.end()
        found = read_comparison(study, queue.job(study.root, number).result["comparison"])
        return {
            "upload_to_directions_s": round(compared - start, 1),
            "breakdown": {
                "check_and_keep_s": round(kept - start, 1),
                "quick_report_s": round(reported - kept, 1),
                "job_s": round(compared - reported, 1),
            },
            "agreement": agreement,
            "strongest_p": min(one["p"] for key in "ab" for one in found["directions"][key]),
        }


def train_augmented(root: Path) -> Path:
    """One checkpoint of the demo's CNN, trained on flipped and shifted pictures."""
    spec = spec_from_template("fashion-mnist").replace(
        "checkpoints = 5", 'checkpoints = 1\naugmentations = ["flip", "crop"]'
    )
    study = Study.create(root, spec)
    (algorithm,) = study.spec.algorithms
    log("training a model to upload")
    build_data(study)
    with writing(study):
        checkpoints.run(Run(study, "cpu", 0, silent), algorithm)
    return layout.checkpoint_file(study.root, algorithm, 0)


def silent(progress: Progress) -> None:
    """Ignore progress."""


def files_of(study: Study) -> set[Path]:
    return {path for path in study.root.rglob("*") if path.is_file()}


def peak_mib(process: str) -> int:
    """Peak memory of a process (VmHWM), in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) // 1024 if found else 0


if __name__ == "__main__":
    report("uploads", measure, __doc__ or "")
