"""Where work runs: worker processes, a Ray cluster, and the queue of jobs."""
