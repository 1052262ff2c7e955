"""jobs: list, follow and stop the background jobs of a study."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from engine.api import Study
from engine.cli.arguments import Verbs
from engine.cli.printing import console, print_json, table
from engine.store.errors import DataloupeError


def add_verbs(verbs: Verbs) -> None:
    """Register the verb of this file."""
    jobs = verbs.add_parser("jobs", help="list, follow, or stop a study's background jobs")
    jobs.add_argument("study", type=Path, help="folder of the study")
    action = jobs.add_mutually_exclusive_group()
    action.add_argument("--json", action="store_true", help="list the jobs as JSON")
    action.add_argument(
        "--wait", type=int, metavar="ID", help="show this job's progress until it ends"
    )
    action.add_argument("--log", type=int, metavar="ID", help="print this job's output so far")
    action.add_argument(
        "--cancel", type=int, metavar="ID", help="stop this job and all of its processes"
    )
    action.add_argument("--cancel-all", action="store_true", help="stop all jobs")
    action.add_argument(
        "--retry", type=int, metavar="ID", help="submit this job again with the same parameters"
    )
    jobs.set_defaults(verb=_jobs)


def _jobs(options: argparse.Namespace) -> int:
    from engine.running.jobs import queue

    study = Study.open(options.study)
    if options.wait is not None:
        _wait_for(study, options.wait)
    elif options.log is not None:
        print(queue.log(study.root, options.log), end="")
    elif options.cancel is not None:
        queue.cancel(study.root, options.cancel)
        print(f"Stopping job {options.cancel}.")
    elif options.cancel_all:
        print(f"Stopping {queue.cancel_all(study.root):,} jobs.")
    elif options.retry is not None:
        print(f"Submitted again as job {queue.retry(study, options.retry)}.")
    elif options.json:
        print_json([vars(job) for job in queue.jobs(study.root)])
    else:
        listed = table("id", "job", "status", "done", "message")
        for job in queue.jobs(study.root):
            done = f"{job.done:,} of {job.total:,}" if job.total else ""
            message = job.error or (job.what if job.active else "")
            listed.add_row(str(job.id), job.title, job.status, done, message)
        console().print(listed)
    return 0


def _wait_for(study: Study, number: int) -> None:
    """Show a job until it ends. Raises DataloupeError unless it ends well."""
    from engine.cli.progress import job_progress
    from engine.running.jobs import queue

    job = queue.job(study.root, number)
    with job_progress(job.title) as show:
        while job.active:
            queue.resume(study.root)
            show(job.done, job.total, job.what)
            time.sleep(0.3)
            job = queue.job(study.root, number)
        show(job.done, job.total, job.status)
        if job.status != "done":
            raise DataloupeError(job.error or f"Job {number} was cancelled.")
