"""Are hostile uploads refused, and does any of them run, hang or eat memory?

The attack corpus of tests/hostile_uploads.py is given to `accept` one file at a time, with a worker
as bounded as the server's. A file counts as hung from ten seconds on.
"""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._report import report, say
from engine.build import build_data
from engine.errors import DataloupeError
from engine.study import Study
from engine.uploads.keeping import Given, accept, trial_worker
from tests.hostile_uploads import fitting_weights, make_corpus, mlp_shapes

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
                    say(f"TAKEN: {attack.path.name}")
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


def files_of(study: Study) -> set[Path]:
    return {path for path in study.root.rglob("*") if path.is_file()}


def peak_mib(process: str) -> int:
    """VmHWM of a process."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) // 1024 if found else 0


if __name__ == "__main__":
    report("uploads", measure, __doc__ or "")
