"""How much faster two nodes of a Ray cluster are than one, each with one core.

    python -m benchmarks.cluster --json [--save]

Nodes are Ray nodes on this machine, which needs two free cores. One and two of them take turns.

- *bank*: training runs of the MLP of `benchmarks.bank`, timed from the moment when every node has
  ended one, so that starting workers is left out.
- *pass*: parts of the pass that ranks both sides, of `benchmarks.imagenet`. The workers of the bank
  have ended, so that starting them is part of it.

`same_bytes` says whether both numbers of nodes wrote the same files.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import bank, imagenet
from benchmarks._report import log, report
from benchmarks.workload import MLP
from engine.api import Study
from engine.build import ranking
from engine.build.run import Run
from engine.build.stages import bank as bank_stage
from engine.running.cluster import Cluster, connect
from engine.running.processes import run_in_pool
from engine.store import layout
from engine.store.layout import TRAK
from engine.store.records import Progress

NODES = (1, 2)
ROUNDS, RUNS = 3, 20
SIZE = imagenet.Size(n_train=1_281_167, n_test=4_000, ranked=131_072)
_STORE_MEMORY = 200 * 2**20


def measure() -> dict[str, Any]:
    """Seconds and ratios of both kinds of work, and whether the bytes are the same."""
    seconds: dict[str, dict[int, list[float]]] = {
        kind: {nodes: [] for nodes in NODES} for kind in ("bank", "pass")
    }
    written: dict[str, set[str]] = {kind: set() for kind in seconds}
    imagenet.write_features(SIZE)
    imagenet.open_scores(SIZE)  # writes the factors, which nodes would otherwise write at once
    with tempfile.TemporaryDirectory() as folder:
        study = bank.make_study(Path(folder) / "study", MLP)
        for number in range(ROUNDS):
            for nodes in NODES[:: 1 if number % 2 else -1]:
                with cluster_of(nodes, study.root) as cluster:
                    seconds["bank"][nodes].append(fill_bank(study, cluster, nodes))
                    written["bank"].add(digest(layout.bank_folder(study.root, MLP.name)))
                    ranked = Path(folder) / "ranked"
                    seconds["pass"][nodes].append(rank(ranked, cluster))
                    written["pass"].add(digest(ranked))
                    shutil.rmtree(ranked)
                log(
                    f"{nodes} nodes: "
                    + ", ".join(f"{k} {seconds[k][nodes][-1]:.1f} s" for k in seconds)
                )
    found: dict[str, Any] = {}
    for kind, measured in seconds.items():
        median = {nodes: statistics.median(measured[nodes]) for nodes in NODES}
        found[kind] = {
            "seconds": {str(nodes): round(median[nodes], 1) for nodes in NODES},
            "two_nodes_speedup": round(median[1] / median[2], 2),
            "same_bytes": len(written[kind]) == 1,
        }
    return {**found, "rounds": ROUNDS, "runs": RUNS, "ranked": SIZE.ranked, "n_test": SIZE.n_test}


@contextmanager
def cluster_of(nodes: int, folder: Path) -> Iterator[Cluster]:
    """A new cluster of this many nodes, one core each, and a connection to it."""
    from ray.cluster_utils import Cluster as RayCluster

    about = {"num_cpus": 1, "object_store_memory": _STORE_MEMORY}
    ray = RayCluster(initialize_head=True, head_node_args={**about, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            ray.add_node(**about)
        with connect(ray.address, folder, "cpu", None) as cluster:
            yield cluster
    finally:
        ray.shutdown()


def fill_bank(study: Study, cluster: Cluster, nodes: int) -> float:
    """Seconds of `RUNS` training runs, once every node is busy."""
    for path in layout.bank_folder(study.root, MLP.name).glob("*"):
        path.unlink()
    moments: list[float] = []

    def note(progress: Progress) -> None:
        moments.append(time.perf_counter())

    with_runs = bank.with_masks(study, RUNS + max(NODES))
    bank_stage.run(Run(with_runs, "cpu", nodes, note, cluster), MLP.name)
    return (moments[-1] - moments[nodes]) / (len(moments) - 1 - nodes) * RUNS


def rank(folder: Path, cluster: Cluster) -> float:
    """Seconds of the pass over all parts."""
    parts = ranking.parts_of(folder, "synthetic", TRAK, "", SIZE.ranked)
    start = time.perf_counter()
    run_in_pool(cluster.pool(), rank_part, parts, lambda part, result: None)
    seconds = time.perf_counter() - start
    ranking.join(parts, SIZE.n_test)
    return seconds


def rank_part(part: ranking.Part) -> None:
    """Worker: pass over one part of the synthetic scores."""
    ranking.pass_over(part, imagenet.open_scores(SIZE), imagenet.K)


def digest(folder: Path) -> str:
    """SHA-256 of all files below a folder, and of their names."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(str(path.relative_to(folder)).encode())
        found.update(path.read_bytes())
    return found.hexdigest()


if __name__ == "__main__":
    from benchmarks import cluster  # workers find a function by its module, which is not __main__

    report("cluster", cluster.measure, __doc__ or "")
