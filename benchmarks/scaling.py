"""Does memory stay flat and time linear as the training set grows from 5,000 to 500,000?

Synthetic features of two checkpoints are on disk, in shards like those of a build. For each size, a
new process scores 1,000 test examples against all training examples and keeps the top 100 of both
signs, both ways, one shard of training rows at a time, as a build does. It reports its peak memory:
VmHWM, which includes mapped file pages, and the sampled peak of anonymous memory.

Every kind of search index is then compared with the exact pass on 50,000 of the rows.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import log, report
from engine.attribution.scores.factors import FactorScores
from engine.attribution.scores.row_shards import RowShards
from engine.attribution.scores.strongest import TopK
from engine.attribution.scores.top_k import merge, top_k
from engine.attribution.search import vector_index
from engine.attribution.search.attribution_space import attribution_space
from engine.store import read_tensors, write_tensors
from engine.store.rows import ranges

SIZES = (5_000, 50_000, 500_000)
ROUNDS = 3
N_TEST, WIDTH, CHECKPOINTS, K = 1_000, 512, 2, 100
ROWS_PER_SHARD, TOP_ROWS_PER_SHARD = 5_000, 4_096
MEMORY_BYTES = 2**28
SEARCH_SIZE, RANK, QUERIES = 50_000, 256, 100


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="dataloupe-scaling-") as name:
        folder = Path(name)
        log(f"writing features of {max(SIZES):,} examples to {folder}")
        write_features(folder)
        runs: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
        for number in range(ROUNDS):
            for size in SIZES:
                run = json.loads(
                    subprocess.run(
                        [sys.executable, "-m", "benchmarks.scaling", "--score", name, str(size)],
                        check=True,
                        capture_output=True,
                        text=True,
                    ).stdout
                )
                runs[size].append(run)
                log(f"round {number + 1}: {size:,} in {run['seconds']:.2f} s")
        rows = [summary(size, runs[size]) for size in SIZES]
        small, middle, large = rows
        return {
            "n_test": N_TEST,
            "features": WIDTH,
            "checkpoints": CHECKPOINTS,
            "k": K,
            "memory_bound_mib": MEMORY_BYTES / 2**20,
            "rounds": ROUNDS,
            "rows": rows,
            "memory_ratio_500k_vs_5k": round(large["peak_mib"] / small["peak_mib"], 3),
            "memory_ratio_500k_vs_50k": round(large["peak_mib"] / middle["peak_mib"], 3),
            "anonymous_memory_ratio_500k_vs_5k": round(
                large["peak_anonymous_mib"] / small["peak_anonymous_mib"], 3
            ),
            "time_per_row_ratio_500k_vs_5k": round(
                large["seconds_per_10k"] / small["seconds_per_10k"], 3
            ),
            "cpu_time_per_row_ratio_500k_vs_5k": round(
                large["cpu_seconds_per_10k"] / small["cpu_seconds_per_10k"], 3
            ),
            "search": search_table(open_scores(folder, SEARCH_SIZE)),
        }


def summary(size: int, runs: list[dict[str, float]]) -> dict[str, Any]:
    """Medians over rounds."""
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {
        "n_train": size,
        "seconds_per_10k": round(median["seconds"] / size * 10_000, 4),
        "cpu_seconds_per_10k": round(median["cpu_seconds"] / size * 10_000, 4),
        **{name: round(value, 2) for name, value in median.items()},
    }


def write_features(folder: Path) -> None:
    """Write Gaussian features, seeded by shard, whose columns decay like a real spectrum."""
    fading = (np.arange(1, WIDTH + 1) ** -0.5).astype(np.float32)
    for checkpoint in range(CHECKPOINTS):
        for shard in range(max(SIZES) // ROWS_PER_SHARD):
            rng = np.random.default_rng([checkpoint, shard])
            features = rng.standard_normal((ROWS_PER_SHARD, WIDTH), dtype=np.float32) * fading
            write_tensors(feature_file(folder, checkpoint, shard), {"features": features}, "")
        rng = np.random.default_rng([checkpoint, 2**20])
        factors = rng.standard_normal((N_TEST, WIDTH), dtype=np.float32) * fading
        write_tensors(folder / f"factors-{checkpoint}.safetensors", {"factors": factors}, "")


def feature_file(folder: Path, checkpoint: int, shard: int) -> Path:
    return folder / f"features-{checkpoint}-{shard:05d}.safetensors"


def open_scores(folder: Path, size: int) -> FactorScores:
    """The first `size` training examples, memory-mapped."""
    return FactorScores(
        features=[
            [
                read_tensors(feature_file(folder, checkpoint, shard))["features"]
                for shard in range(size // ROWS_PER_SHARD)
            ]
            for checkpoint in range(CHECKPOINTS)
        ],
        factors=[
            read_tensors(folder / f"factors-{checkpoint}.safetensors")["factors"]
            for checkpoint in range(CHECKPOINTS)
        ],
        out_to_loss=np.random.default_rng(0).random(size, dtype=np.float32),
    )


# --- one size, in a separate process ---------------------------------------------------------


def score(folder: Path, size: int) -> dict[str, float]:
    """Score, keep the top k and write the training side, as a build does; times and peaks."""
    scores = open_scores(folder, size)
    baseline = memory_mib("VmRSS")
    anonymous = [memory_mib("RssAnon")]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.005):
            anonymous.append(memory_mib("RssAnon"))

    sampler = threading.Thread(target=sample)
    sampler.start()
    start, cpu = time.perf_counter(), time.process_time()
    best: TopK | None = None
    for trains in ranges(range(size), TOP_ROWS_PER_SHARD):
        by_test, by_train = top_k(scores, K, trains, MEMORY_BYTES)
        best = by_test if best is None else merge([best, by_test])
        write_tensors(folder / "top.safetensors", vars(by_train), "")
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    done.set()
    sampler.join()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_mib": memory_mib("VmHWM"),
        "peak_anonymous_mib": max(anonymous),
        "baseline_mib": baseline,
    }


def memory_mib(field: str) -> float:
    """A field of /proc/self/status in MiB. Not ru_maxrss: it starts at the parent's size."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


# --- search ------------------------------------------------------------------------------------


def search_table(scores: FactorScores) -> dict[str, Any]:
    """Recall and time of each kind of index, compared with exact blocks of τ."""
    start = time.perf_counter()
    truth, _ = top_k(scores, K)
    exact_seconds = time.perf_counter() - start
    start = time.perf_counter()
    space = attribution_space(scores, RANK, seed=0)
    vectors = RowShards.of([space.train_vectors(scores, range(scores.n_train))])
    space_seconds = time.perf_counter() - start
    tests = np.sort(np.random.default_rng(0).choice(N_TEST, QUERIES, replace=False))
    sample = TopK(**{name: array[tests] for name, array in vars(truth).items()})
    queries = space.test_vectors()[tests]
    exact = partial(np.take_along_axis, scores.rows(tests), axis=1)
    kinds = {}
    for kind in ("flat", "sq", "pq", "ivf"):
        log(f"search index {kind}")
        start = time.perf_counter()
        index = vector_index.build_index(vectors, kind, seed=0)
        build_seconds = time.perf_counter() - start
        recall = vector_index.measure_recall(index, queries, exact, sample)
        single = []
        for query in queries:
            start = time.perf_counter()
            index.search(np.stack([query, -query]), recall.candidates)
            single.append(time.perf_counter() - start)
        kinds[kind] = {
            "build_seconds": round(build_seconds, 2),
            "mib": round(len(vector_index.index_to_array(index)) / 2**20, 1),
            "candidates": recall.candidates,
            "recall": round(recall.recall, 4),
            "recall_by_candidates": {str(c): round(r, 4) for c, r in recall.table.items()},
            "ms_a_query_of_both_signs": round(1000 * statistics.median(single), 2),
        }
    return {
        "n_train": scores.n_train,
        "rank": RANK,
        "k": K,
        "queries": QUERIES,
        "exact_pass_of_all_tests_both_ways_seconds": round(exact_seconds, 2),
        "attribution_space_seconds": round(space_seconds, 2),
        "kinds": kinds,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--score"]:
        print(json.dumps(score(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        report("scaling", measure, __doc__ or "")
