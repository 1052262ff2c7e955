"""Execution: worker processes, a Ray cluster, the job queue, and the dashboard's server."""
