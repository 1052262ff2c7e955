"""ImageNet's size: the pass that ranks both sides, beside its matrix product; and storage.

    python -m benchmarks.imagenet --json [--save]

Synthetic features of one checkpoint, of low rank plus noise, are on disk as float16, in shards like
those of a build. A new process ranks all training and all test examples, top 100 of both signs, by
the code of a build: part by part, so that a stopped run continues. After each part it times the
bare matrix product of the same blocks in memory, with as many threads, so that both have the same
load. Recall is measured on examples whose scores are computed in float64 and sorted.

`DATALOUPE_IMAGENET_PARTS` names what to run, separated by commas, `quick` if it is not set;
results of the others are kept in `.bench/imagenet/`. `DATALOUPE_THREADS` is the number of threads,
one if it is not set.

- `quick`: a minute.
- `slice`: two parts of the 40 of the true size.
- `narrow`: all training examples and 1,000 test examples.
- `true`: 1,281,167 × 50,000, 262 TFLOP: hours on two cores.
- `pictures`: 200,000 JPEG files by reference, see `benchmarks.pictures`; `pictures-quick`: 10,000.
- `storage`: see `benchmarks.storage`; `DATALOUPE_HALVES` of the workload's 100 halves.
- `models`: features of timm's models at 224 × 224, see `benchmarks.imagenet_models`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._parts import run_parts
from benchmarks._report import log, report
from benchmarks.imagenet_models import measure_models
from benchmarks.pictures import QUICK, TRUE, measure_pictures
from benchmarks.scaling import memory_mib
from benchmarks.storage import measure_storage
from benchmarks.workload import CACHE
from engine import store
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.factors import FactorScores
from engine.attribution.scores.read_ahead import Seconds
from engine.attribution.scores.top_k import top_k
from engine.build import ranking
from engine.running.threads import environment
from engine.store.layout import ROWS_PER_SHARD, TRAK
from engine.store.rows import evenly_spread, ranges

WIDTH, RANK, K = 2_048, 32, 100
CHECKED = 64
"""Examples of each side whose top-k is compared with sorted scores in float64."""
GEMM_ROWS, GEMM_TESTS = 4_096, 1_024
FOLDER = CACHE / "imagenet"


@dataclass(frozen=True)
class Size:
    """How much is ranked: the first `ranked` of `n_train` training examples, in whole parts."""

    n_train: int
    n_test: int
    ranked: int


SIZES = {
    "quick": Size(32_768, 10_000, 32_768),
    "slice": Size(1_281_167, 50_000, 65_536),
    "narrow": Size(1_281_167, 1_000, 1_281_167),
    "true": Size(1_281_167, 50_000, 1_281_167),
}


def measure() -> dict[str, Any]:
    os.environ.setdefault("DATALOUPE_IMAGENET_PARTS", "quick")
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        name: partial(measure_size, name, size) for name, size in SIZES.items()
    }
    parts["storage"] = measure_storage
    parts["pictures"] = partial(measure_pictures, TRUE)
    parts["pictures-quick"] = partial(measure_pictures, QUICK)
    parts["models"] = measure_models
    return {"features": WIDTH, "k": K, **run_parts(FOLDER, parts, "DATALOUPE_IMAGENET_PARTS")}


def measure_size(name: str, size: Size) -> dict[str, Any]:
    """Rank in a process of its own, whose peak memory then is that of the pass."""
    write_features(size)
    threads = int(os.environ.get("DATALOUPE_THREADS", "1"))
    subprocess.run(
        [sys.executable, "-m", "benchmarks.imagenet", "--rank", name],
        check=True,
        env={**os.environ, **environment(threads)},
    )
    spent = [json.loads(file.read_text()) for file in sorted(results(name).glob("*.json"))]
    total = {key: sum(part[key] for part in spent) for key in spent[0]}
    top = results(name) / "algorithms"
    found = {
        "n_train": size.n_train,
        "n_test": size.n_test,
        "ranked": size.ranked,
        "threads": threads,
        "tflop": round(2e-12 * size.ranked * size.n_test * WIDTH, 2),
        "seconds": round(total["seconds"], 1),
        "gemm_seconds": round(total["gemm_seconds"], 1),
        "pass_vs_gemm": round(total["seconds"] / total["gemm_seconds"], 3),
        "cpu_pass_vs_gemm": round(total["cpu_seconds"] / total["gemm_cpu_seconds"], 3),
        "seconds_waiting": round(total["waiting"], 1),
        "seconds_multiplying": round(total["multiplying"], 1),
        "seconds_selecting": round(total["selecting"], 1),
        "bound": Seconds(total["waiting"], total["multiplying"], total["selecting"]).bound,
        "peak_mib": max(part["peak_mib"] for part in spent),
        "feature_mib": round(size.ranked * WIDTH * 2 / 2**20),
        "result_mib": round(sum(f.stat().st_size for f in top.rglob("*.safetensors")) / 2**20),
        "recall": recall(name, size),
    }
    shutil.rmtree(results(name))
    return {name: found}


def results(name: str) -> Path:
    """Where a size's parts and their times are kept until all are ranked."""
    return FOLDER / name


# --- synthetic features ------------------------------------------------------------------------


def write_features(size: Size) -> None:
    """Write the shards that are not there: seeded by shard, float16, low rank plus noise."""
    basis = np.random.default_rng(0).standard_normal((RANK, WIDTH), dtype=np.float32)
    for rows in ranges(range(size.ranked), ROWS_PER_SHARD):
        path = feature_file(rows.start // ROWS_PER_SHARD)
        if not path.exists():
            rng = np.random.default_rng([1, rows.start])
            features = _low_rank(rng, basis, ROWS_PER_SHARD).astype(np.float16)
            store.write_tensors(path, {"features": features}, "")


def feature_file(shard: int) -> Path:
    return FOLDER / "features" / f"{shard:05d}.safetensors"


def _low_rank(rng: np.random.Generator, basis: np.ndarray, rows: int) -> np.ndarray:
    weights = rng.standard_normal((rows, RANK), dtype=np.float32)
    noise = rng.standard_normal((rows, WIDTH), dtype=np.float32)
    noise += weights @ basis / np.float32(RANK**0.5)
    return noise


def open_scores(size: Size) -> FactorScores:
    """The ranked training examples, memory-mapped, with factors that are kept on disk, too."""
    shards = -(-size.ranked // ROWS_PER_SHARD)
    features = [store.read_tensors(feature_file(shard))["features"] for shard in range(shards)]
    features[-1] = features[-1][: size.ranked - (shards - 1) * ROWS_PER_SHARD]
    path = FOLDER / "features" / f"factors-{size.n_test}.safetensors"
    if not path.exists():
        basis = np.random.default_rng(0).standard_normal((RANK, WIDTH), dtype=np.float32)
        factors = _low_rank(np.random.default_rng(2), basis, size.n_test)
        store.write_tensors(path, {"factors": factors}, "")
    q = np.random.default_rng(3).random(size.ranked, dtype=np.float32)
    return FactorScores([features], [store.read_tensors(path)["factors"]], q)


# --- the pass, in a separate process ------------------------------------------------------------


def rank(name: str) -> None:
    """Rank the parts that are missing, and keep the time of each beside the time of its product."""
    size = SIZES[name]
    scores = open_scores(size)
    parts = ranking.parts_of(results(name), "synthetic", TRAK, "", size.ranked)
    left = ranking.missing(parts)
    if left:
        compile_loops()
    for number, part in enumerate(left):
        start, cpu = time.perf_counter(), time.process_time()
        seconds = ranking.pass_over(part, scores, K)
        spent = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu,
            **vars(seconds),
            "peak_mib": memory_mib("VmHWM"),
            **gemm(len(part.trains), size.n_test),
        }
        (results(name) / f"{part.number:05d}.json").write_text(json.dumps(spent))
        minutes = (len(left) - number - 1) * (time.perf_counter() - start) / 60
        log(
            f"{name}: part {part.number + 1} of {len(parts)} in {spent['seconds']:.0f} s, "
            f"{spent['seconds'] / spent['gemm_seconds']:.2f} of its product, limited by the "
            f"{seconds.bound}; about {minutes:.0f} minutes left"
        )
    ranking.join(parts, size.n_test)


def compile_loops() -> None:
    """Call them once before anything is timed."""
    rng = np.random.default_rng(0)
    tau = rng.random((8_192, 8_192), dtype=np.float32)
    top_k(DenseScores([tau]), 1, range(64))


def gemm(n_train: int, n_test: int) -> dict[str, float]:
    """Time of the bare product, from some blocks in memory."""
    rng = np.random.default_rng(0)
    tests = min(n_test, GEMM_TESTS)
    a = rng.random((GEMM_ROWS, WIDTH), dtype=np.float32)
    b = rng.random((tests, WIDTH), dtype=np.float32)
    out = a @ b.T
    blocks = n_train / GEMM_ROWS * n_test / tests
    measured = max(8, int(blocks / 20))
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(measured):
        np.matmul(a, b.T, out=out)
    each = blocks / measured
    return {
        "gemm_seconds": (time.perf_counter() - start) * each,
        "gemm_cpu_seconds": (time.process_time() - cpu) * each,
    }


# --- recall --------------------------------------------------------------------------------------


def recall(name: str, size: Size) -> float:
    """Share of the true top-k of both signs that was found, for some examples of each side."""
    scores = open_scores(size)
    factors = scores.factors[0].astype(np.float64)
    tests = evenly_spread(size.n_test, CHECKED)
    parts = ranking.parts_of(results(name), "synthetic", TRAK, "", size.ranked)
    top = ranking.join(parts, size.n_test)
    tau = np.concatenate(
        [factors[tests] @ shard[:].astype(np.float64).T for shard in scores.features[0]], axis=1
    )
    tau *= scores.out_to_loss
    shares = [_share(tau[i], top.support_index[t], 1) for i, t in enumerate(tests)]
    shares += [_share(tau[i], top.oppose_index[t], -1) for i, t in enumerate(tests)]
    for train in evenly_spread(size.ranked, CHECKED):
        shard, row = divmod(int(train), ROWS_PER_SHARD)
        tau = factors @ scores.features[0][shard][row : row + 1][0].astype(np.float64)
        stored = store.read_tensors(parts[0].shard_file(shard))
        for side, sign in (("support", 1), ("oppose", -1)):
            shares.append(_share(tau, stored[f"{side}_index"][row], sign))
    return float(np.mean(shares))


def _share(tau: np.ndarray, found: np.ndarray, sign: int) -> float:
    """Share of those found whose score is among the k largest, but for float32's rounding."""
    least = np.sort(sign * tau)[-len(found)]
    tolerance = 1e-5 * np.abs(tau).max()
    return float(np.mean(sign * tau[found] >= least - tolerance))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        rank(sys.argv[2])
    else:
        report("imagenet", measure, __doc__ or "")
