"""Pictures by reference at size: bytes on disk, time until training starts, an epoch's time.

A part of `benchmarks.imagenet`. The files are made at run time: photos of the folder that
`DATALOUPE_PHOTOS` names (`train.parquet` with pictures and labels), or the embedded emoji if it is
not set, as JPEG of 500 pixels, as ImageNet's are, each written many times with a number of its own
in a comment, so that no two files have the same bytes. Models read them at
`DATALOUPE_PICTURES_SIDE` pixels, 64 if it is not set.

An epoch of a small MLP, which waits for pictures, is compared with decoding alone: the same files
read, decoded and resized by as many threads, and nothing else. Both take turns, some pictures each,
so that they have the same load of the machine. As in a worker, arithmetic has one thread; decoding
has `DATALOUPE_THREADS`, two if it is not set. With as many cores, everything but decoding adds to
the time of an epoch.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks._parts import core_seconds
from benchmarks._report import log
from benchmarks.scaling import memory_mib
from benchmarks.workload import CACHE
from engine.data.fitting import DECODERS, decoders
from engine.running.processes import worker_environment

PHOTOS = "DATALOUPE_PHOTOS"
FOLDER = CACHE / "pictures"
FILE_SIDE = 500
QUICK, TRUE = 10_000, 200_000
TESTS = 1_000
TURN = 2_048
"""Pictures after which an epoch and decoding alone take turns."""
TIMED = 30_720
"""Pictures of the shuffled epoch that are timed."""
_SPEC = """\
name = "Pictures by reference"

[data]
source = "{source}"
id = "file"
pictures = "reference"

[task]
image_size = {side}
resize = "crop"

[algorithms.mlp]
architecture = "mlp"
architecture_options = {{ widths = [32] }}
epochs = 1
batch_size = 256
checkpoints = 1
"""


def measure_pictures(n: int) -> dict[str, Any]:
    """Measure in a process of its own; see the top of this file."""
    source = write_files(n)
    threads = int(os.environ.get("DATALOUPE_THREADS", "2"))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pictures", str(source), str(n)],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, **worker_environment(1), DECODERS: str(threads)},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {"pictures" if n >= TRUE else "pictures_quick": found}


# --- the files ------------------------------------------------------------------------------------


def write_files(n: int) -> Path:
    """Class folders of n training files and some test files; those that are there stay."""
    source = FOLDER / f"files-{n}"
    if (source / "done").exists():
        return source
    shutil.rmtree(source, ignore_errors=True)
    encoded = [(label, _jpeg(picture)) for label, picture in _photos()]
    log(f"writing {n:,} files of {len(encoded):,} photos")
    for split, count in (("train", n), ("test", TESTS)):
        for label in {label for label, _ in encoded}:
            (source / split / label).mkdir(parents=True)
        for number in range(count):
            label, content = encoded[number % len(encoded)]
            file = source / split / label / f"{split}_{number:08d}.jpg"
            file.write_bytes(_with_comment(content, f"{split} {number}"))
    (source / "done").touch()
    return source


def _photos() -> list[tuple[str, Image.Image]]:
    """(class, picture) of what is at hand."""
    import pyarrow.parquet as pq

    from engine.data.assets import asset

    if PHOTOS in os.environ:
        table, column = pq.read_table(Path(os.environ[PHOTOS]) / "train.parquet"), "image"
    else:
        table, column = pq.read_table(sorted(asset("emoji").glob("train*.parquet"))[0]), "image"
    pictures = table[column].combine_chunks().field("bytes").to_pylist()
    labels = [f"class-{label}" for label in table["label"].to_pylist()]
    return [
        (label, Image.open(io.BytesIO(content)))
        for label, content in zip(labels, pictures, strict=True)
    ]


def _jpeg(picture: Image.Image) -> bytes:
    """At 500 pixels, in color."""
    file = io.BytesIO()
    large = ImageOps.contain(picture.convert("RGB"), (FILE_SIDE, FILE_SIDE))
    large.save(file, "JPEG", quality=85)
    return file.getvalue()


def _with_comment(content: bytes, text: str) -> bytes:
    """The same JPEG with a comment after its start."""
    comment = text.encode()
    return content[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + content[2:]


# --- in a process of its own ----------------------------------------------------------------------


def measure(source: Path, n: int) -> dict[str, Any]:
    """Build the data, start a training, and time an epoch beside decoding alone."""
    from engine import Study
    from engine.build.models import initial_model
    from engine.build.run import Run
    from engine.build.stages import data
    from engine.build.tasks import task_of
    from engine.study.examples import read_stacked_arrays
    from engine.training.stepping import Training

    side = int(os.environ.get("DATALOUPE_PICTURES_SIDE", "64"))
    root = FOLDER / f"study-{n}"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / "study.toml").write_text(_SPEC.format(source=source, side=side))
    start, cpu = time.perf_counter(), core_seconds()
    data.run(Run(Study.open(root), "cpu", decoders(), lambda progress: None))
    reading = time.perf_counter() - start
    study = Study.open(root)
    spec = study.spec.algorithms["mlp"]
    arrays = read_stacked_arrays(study, "train")
    model = initial_model(study, spec, 0)
    training = Training(task_of(study), model, arrays, study.dataset.encoding, spec, 0, "cpu")
    with training.running():
        training.advance()
        starts, cpu = time.perf_counter() - start, core_seconds() - cpu
        log(f"data in {reading:.1f} s, training starts after {starts:.1f} s")
        timed, epoch, alone = _take_turns(training, arrays["input"], source, study, side)
    files = [file for file in (root / "data").rglob("*") if file.is_file()]
    total = len(arrays["input"]) + study.dataset.n_test
    return {
        "pictures": n,
        "side": side,
        "threads": decoders(),
        "file_bytes": round(np.mean([f.stat().st_size for f in (source / "test").rglob("*.jpg")])),
        "bytes_per_picture": round(sum(file.stat().st_size for file in files) / total, 1),
        "copied_pixel_bytes": sum(
            file.stat().st_size for file in files if file.suffix in (".webp", ".jpg", ".png")
        ),
        "data_s": round(reading, 1),
        "training_starts_s": round(starts, 1),
        "training_starts_core_s": round(cpu, 1),
        "timed": timed,
        "epoch_s": round(epoch[0] * n / timed, 1),
        "decoding_s": round(alone[0] * n / timed, 1),
        "epoch_vs_decoding": round(epoch[0] / alone[0], 3),
        "cpu_epoch_vs_decoding": round(epoch[1] / alone[1], 3),
        "peak_mib": memory_mib("VmHWM"),
    }


def _take_turns(
    training: Any, pictures: Any, source: Path, study: Any, side: int
) -> tuple[int, np.ndarray, np.ndarray]:
    """(pictures; seconds of this part of an epoch, on the clock and of a core; the same of decoding
    its pictures alone)."""
    files = [str(source / file) for file in study.table("train")["file"]]
    epoch, alone = np.zeros(2), np.zeros(2)
    done = 0
    pool = ThreadPoolExecutor(decoders())
    decode = partial(_decode, side=side, enough=2 * max(side, study.dataset.cell))
    while done < TIMED and training.step < training.n_steps:
        rows: list[int] = []
        _settle(pictures)
        start = _clocks()
        while len(rows) < TURN and training.step < training.n_steps:
            rows += training.rows().tolist()
            training.advance()
        _settle(pictures)
        epoch += _clocks() - start
        start = _clocks()
        # As the epoch does: several pictures a task.
        groups = [[files[row] for row in rows[i : i + 8]] for i in range(0, len(rows), 8)]
        for _ in pool.map(decode, groups):
            pass
        alone += _clocks() - start
        done += len(rows)
        if done % (TURN * 10) == 0:
            log(f"{done:,} pictures: {epoch[0] / alone[0]:.3f} of decoding alone")
    pool.shutdown()
    return done, epoch, alone


def _clocks() -> np.ndarray:
    """Seconds on the clock, and seconds of a core of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def _settle(pictures: Any) -> None:
    """Wait for what was begun ahead, which counts for the epoch that asked for it."""
    for future, _ in list(pictures._begun.values()):
        future.result()


def _decode(files: list[str], side: int, enough: int) -> np.ndarray:
    """Read, decode and resize pictures, and nothing else."""
    found = np.empty((len(files), 3, side, side), np.uint8)
    for target, file in zip(found, files, strict=True):
        picture = Image.open(io.BytesIO(Path(file).read_bytes()))
        picture.draft("RGB", (enough, enough))
        small = ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.BICUBIC)
        target[:] = np.asarray(small).transpose(2, 0, 1)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
