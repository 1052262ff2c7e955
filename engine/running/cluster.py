"""Run jobs on a Ray cluster: the same jobs and shards, in processes of other machines.

A cluster is started by its owner (`ray start --head`, `ray start --address=HEAD:6379`, an
autoscaler, KubeRay). Every node has Dataloupe installed and sees the study's folder under the same
path. Ray assigns jobs to nodes. It never repeats a job by itself: a job whose worker or node died
is returned as a `Death`, and is tried again like any other (engine.running.processes).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.running.processes import (
    WORKERS_ON_GPU,
    Death,
    failure,
    run_message,
    worker_environment,
)
from engine.running.threads import limited
from engine.store.errors import SpecError

_THREADS = 1
_PER_CPU = 2
"""Jobs submitted to Ray for each CPU, so that no CPU waits for this process, and an autoscaling
cluster sees that there is work for more nodes."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process is connected to.

    Attributes:
        folder: The study's folder, which all nodes must see.
        device: `cpu` or `cuda`; several workers share a GPU.
        workers: Largest number of jobs at a time; None: as many as fit.
    """

    folder: Path
    device: str
    workers: int | None = None

    def pool(self) -> RayPool:
        """A pool of the cluster's workers for one list of jobs."""
        return RayPool(self)


@contextlib.contextmanager
def connect(address: str, folder: Path, device: str, workers: int | None) -> Iterator[Cluster]:
    """Connect to a running cluster, and disconnect at the end.

    Args:
        address: `HOST:PORT` of the head, `auto` for the cluster that this machine is part of,
            `ray://HOST:PORT` from outside (needs `ray[client]`), `local` for a new local cluster.
        device: `auto` uses GPUs if the cluster has any.

    Raises:
        SpecError: Ray is not installed, no cluster responds, it has no GPU, or workers is 0.
    """
    if workers == 0:
        raise SpecError(
            "--workers 0 runs in this process and --ray on a cluster: use only one of them."
        )
    try:
        import ray
    except ImportError as error:
        raise SpecError("--ray needs Ray: pip install 'dataloupe[cluster]'.") from error
    ours = not ray.is_initialized()
    if ours:
        _check_that_something_listens(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise SpecError(f"The Ray cluster {address!r} cannot be used: {reason}") from error
    try:
        gpus = ray.cluster_resources().get("GPU", 0)
        if device == "cuda" and not gpus:
            raise SpecError(f"device 'cuda' was requested, but Ray's {address!r} has no GPU.")
        use = "cuda" if gpus and device != "cpu" else "cpu"
        yield Cluster(folder, use, workers)
    finally:
        if ours:
            ray.shutdown()


def _check_that_something_listens(address: str) -> None:
    """Fail early if nothing listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise SpecError(
                f"Nothing responds at {address} ({error.strerror or error}). Check that the head "
                "node is running (`ray start --head --port=6379`), and that this is its address."
            ) from error


@dataclass
class RayPool:
    """A `Pool` (engine.running.processes) of Ray's workers; a ticket is a reference to a result."""

    cluster: Cluster
    _pending: list[Any] = field(default_factory=list)

    def slots(self) -> int:
        import ray

        if self.cluster.workers is not None:
            return self.cluster.workers
        return _PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 0)))

    def start(self, message: bytes) -> Any:
        import ray

        variables = {**worker_environment(_THREADS), "PYTHONPATH": _our_modules()}
        remote = ray.remote(
            num_cpus=_THREADS,
            num_gpus=1 / WORKERS_ON_GPU if self.cluster.device == "cuda" else 0,
            max_retries=0,
            runtime_env={"env_vars": variables},
        )(_run_on_node)
        reference = remote.remote(message, str(self.cluster.folder))
        self._pending.append(reference)
        return reference

    def wait(self) -> list[tuple[Any, bytes | Death]]:
        import ray

        ready, self._pending = ray.wait(self._pending)
        return [(reference, _read(reference)) for reference in ready]

    def close(self) -> None:
        import ray

        for reference in self._pending:
            ray.cancel(reference, force=True)


def _read(reference: Any) -> bytes | Death:
    import ray
    from ray.exceptions import RayTaskError

    try:
        reply: bytes = ray.get(reference)
    except RayTaskError:  # raised by the node's Python, so the node did not die
        raise
    except ray.exceptions.RayError as error:
        return Death(f"of the cluster died ({str(error).splitlines()[0]})")
    return reply


def _run_on_node(message: bytes, folder: str) -> bytes:
    """Worker: run one job, on the node that Ray chose."""
    if not Path(folder).is_dir():
        return failure(
            SpecError(
                f"Node {socket.gethostname()} of the cluster does not see {folder}. The study must "
                "be in a file system that all nodes share, under the same path."
            )
        )
    with limited(_THREADS):
        return run_message(message)


def _our_modules() -> str:
    """Module paths of this process outside installed environments: a source tree, the user's own
    architectures."""
    installed = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    paths = [Path(path).resolve() for path in sys.path]
    return os.pathsep.join(str(path) for path in paths if not installed & {path, *path.parents})
