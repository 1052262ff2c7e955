"""The run of a build that every stage receives: where jobs run, and where progress is reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from engine.running import processes
from engine.running.cluster import Cluster
from engine.store.records import Progress
from engine.study.reader import StudyReader

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Run:
    """One call of `build`.

    Attributes:
        device: `cpu` or `cuda`.
        workers: Worker processes on each machine, one thread each; 0 runs jobs in this process.
        report: Called with a stage's progress after each finished job.
        cluster: The cluster that runs the jobs; None: this machine.
    """

    study: StudyReader
    device: str
    workers: int
    report: Callable[[Progress], None]
    cluster: Cluster | None = None

    def run_remaining(
        self,
        stage: str,
        algorithm: str,
        function: Callable[[Job], None],
        jobs: Sequence[Job],
        total: int,
    ) -> None:
        """Run the remaining `jobs` of a stage's `total`. Report now and after each job."""
        done = total - len(jobs)
        self.report(Progress(stage, algorithm, done, total))

        def on_done(job: Job, result: None) -> None:
            nonlocal done
            done += 1
            self.report(Progress(stage, algorithm, done, total))

        self.run_jobs(function, jobs, on_done)

    def run_jobs(
        self,
        function: Callable[[Job], Result],
        jobs: Sequence[Job],
        on_done: Callable[[Job, Result], None],
    ) -> None:
        """Run `function` on every job, in worker processes or on the cluster.

        See `engine.running.processes`.
        """
        if self.cluster is None:
            processes.run_jobs(function, jobs, self.workers, on_done)
        else:
            processes.run_in_pool(self.cluster.pool(), function, jobs, on_done)
