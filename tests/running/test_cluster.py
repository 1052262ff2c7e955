"""A build on a Ray cluster: the same bytes as on this machine, also when half of it dies."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import Progress, SpecError, Study
from engine.build.ranking import SHARDS_PER_PART
from engine.running import cluster
from engine.running.threads import limited
from engine.store.layout import ROWS_PER_SHARD
from tests.build.test_build import contents
from tests.builders.copies import copy_of
from tests.conftest import SMALL_STUDY
from tests.running.test_processes import threads_of_libraries

BANK = SMALL_STUDY.replace("epochs = 4", "epochs = 16")

MANY_ROWS = SHARDS_PER_PART * ROWS_PER_SHARD + 100
"""Training examples of two parts of a pass."""

LARGE = """\
name = "Many"

[data]
source = "../many.npz"

[algorithms.mlp]
architecture = "mlp"
architecture_options = { widths = [4] }
epochs = 1
batch_size = 1024
checkpoints = 3

[trak]
solver = "primal"
proj_dim = 16
batch_size = 1024

[search]
top_k = 5
rank = 4
map_epochs = 1
"""


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """A Ray cluster of two nodes of one CPU each on this machine, and the node that may go."""
    pytest.importorskip("ray", reason="needs the extra `cluster`: pip install -e '.[cluster]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield nodes, nodes.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    finally:
        nodes.shutdown()


@pytest.mark.determinism
def test_a_node_that_dies_loses_and_repeats_nothing(
    two_nodes: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, second = two_nodes
    here = Study.create(tmp_path / "here", BANK)
    with pytest.raises(EnoughError):
        here.build(workers=0, on_progress=stop_before("bank"))
    there = copy_of(here, tmp_path / "there")
    with pytest.raises(EnoughError):
        here.build(workers=0, on_progress=stop_before("trak"))
    monkeypatch.chdir(tmp_path)
    answers, seen = [], []
    read = cluster._read
    monkeypatch.setattr(cluster, "_read", lambda ref: answers.append(read(ref)) or answers[-1])

    def kill_a_node(step: Progress) -> None:
        stop_before("trak")(step)
        if step.stage == "bank":
            seen.append(step.done)
            if step.done == 3:
                nodes.remove_node(second, allow_graceful=False)

    with pytest.raises(EnoughError):
        Study.open("there").build(ray=nodes.address, on_progress=kill_a_node)
    assert seen == list(range(19))  # 15 masks, and a second run of three
    assert contents(there.root) == contents(here.root)


class EnoughError(Exception):
    """What is left of a build is not of interest."""


def stop_before(stage: str) -> Callable[[Progress], None]:
    def stop(step: Progress) -> None:
        if step.stage == stage:
            raise EnoughError

    return stop


@pytest.mark.determinism
def test_nodes_that_die_and_join_during_features_and_the_pass(
    two_nodes: tuple[Any, Any], tmp_path: Path
) -> None:
    nodes, second = two_nodes
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", MANY_ROWS), ("test", 20)):
        arrays[f"y_{split}"] = rng.integers(0, 2, n)
        dark = rng.integers(0, 100, (n, 4, 4))
        arrays[f"x_{split}"] = (dark + 100 * arrays[f"y_{split}"][:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "many.npz", **arrays)
    here = Study.create(tmp_path / "here", LARGE)
    with pytest.raises(EnoughError):
        here.build(workers=0, on_progress=stop_before("trak"))
    there = copy_of(here, tmp_path / "there")
    with pytest.raises(EnoughError):
        here.build(workers=0, on_progress=stop_before("map"))

    left, running = {"trak", "search"}, second

    def replace_a_node(step: Progress) -> None:
        nonlocal running
        stop_before("map")(step)
        if step.stage in left and step.done == 1:
            left.remove(step.stage)
            nodes.remove_node(running, allow_graceful=False)
            running = nodes.add_node(num_cpus=1, object_store_memory=100 * 2**20)

    with pytest.raises(EnoughError):
        there.build(ray=nodes.address, on_progress=replace_a_node)
    assert not left
    assert contents(there.root) == contents(here.root)


def test_a_cluster_that_is_not_there_is_named(study_folder: Path) -> None:
    pytest.importorskip("ray")
    study = Study.open(study_folder)
    with pytest.raises(SpecError, match=r"Nothing responds at 127\.0\.0\.1:1 \(.*ray start --head"):
        study.build(ray="127.0.0.1:1")
    with pytest.raises(SpecError, match="'nonsense' cannot be used: Invalid address format"):
        study.build(ray="nonsense")
    with pytest.raises(SpecError, match="--workers 0"):
        study.build(ray="127.0.0.1:1", workers=0)


def test_without_ray_the_way_to_get_it_is_said(
    study_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SpecError, match=r"--ray needs Ray: pip install 'dataloupe\[cluster\]'"):
        Study.open(study_folder).build(ray="auto")


def test_a_node_that_does_not_see_the_study_says_so(tmp_path: Path) -> None:
    failure, _ = pickle.loads(cluster._run_on_node(b"", str(tmp_path / "elsewhere")))
    assert isinstance(failure, SpecError)
    assert "does not see" in str(failure)


def test_a_node_computes_with_one_thread_where_others_compute_with_two(tmp_path: Path) -> None:
    message = pickle.dumps((threads_of_libraries, 0))
    with limited(2):
        failure, (_, threads) = pickle.loads(cluster._run_on_node(message, str(tmp_path)))
    assert (failure, threads) == (None, {1})


def test_nodes_are_told_of_modules_that_are_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    paths = cluster._our_modules().split(os.pathsep)
    assert str(tmp_path.resolve()) in paths
    assert str(Path(logging.__file__).parent.parent) not in paths
