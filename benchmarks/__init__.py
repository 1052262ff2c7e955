"""Reproducible benchmarks: `python -m benchmarks.NAME --json [--save]`."""
