"""Fixtures shared by the tests of several pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dashboard.read.live_queries import Workers
from engine.api import Study
from tests.builders.synthetic_study import write_study


@pytest.fixture(scope="module")
def complete_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A synthetic study with everything built: 60 training and 40 test pictures of 8 classes."""
    return write_study(tmp_path_factory.mktemp("studies") / "complete", n_train=60, n_test=40)


@pytest.fixture(scope="session")
def workers() -> Iterator[Workers]:
    """The workers of live queries for all tests: they take seconds to load."""
    kept = Workers()
    yield kept
    kept.end()
