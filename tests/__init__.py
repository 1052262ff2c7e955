"""Tests, and what only tests and benchmarks of the pages need."""
