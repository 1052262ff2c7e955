"""What every stage of a build is given."""

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
        workers: Processes that work side by side on a machine, one thread each; 0 works in this
            process.
        report: Called after each finished piece of work.
        cluster: Where jobs run if not on this machine.
    """

    study: StudyReader
    device: str
    workers: int
    report: Callable[[Progress], None]
    cluster: Cluster | None = None

    def finish(
        self,
        stage: str,
        algorithm: str,
        function: Callable[[Job], None],
        jobs: Sequence[Job],
        total: int,
    ) -> None:
        """Run the jobs that a stage has left of `total`, and report at once and after each."""
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
        """Run `function` on every job, wherever this build's jobs run; see
        `engine.running.processes`."""
        if self.cluster is None:
            processes.run_jobs(function, jobs, self.workers, on_done)
        else:
            processes.run_in_pool(self.cluster.pool(), function, jobs, on_done)
