"""Kinds of jobs for the tests, in every interpreter that has this folder in its PYTHONPATH."""

from engine.running.jobs.kinds import KINDS
from tests.builders.job_kinds import TEST_KINDS

KINDS.update(TEST_KINDS)
