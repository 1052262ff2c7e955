"""Fixtures shared by the tests of several pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dashboard.read.live_queries import Workers
from engine.api import Study
from engine.study.removal_sets import keep_set
from tests.builders.synthetic_audit import write_audit
from tests.builders.synthetic_quality import write_quality
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


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A synthetic study of two algorithms with quality, an audit, the set that it forgets, and a
    comparison. Read it, never write into it."""
    root = tmp_path_factory.mktemp("audited") / "study"
    study = write_study(root, n_train=80, n_test=24, algorithms=("cnn", "other"))
    write_quality(study)
    write_audit(study, range(2, 40, 3))
    keep_set(study, range(2, 40, 3), "the first")
    study.compare("cnn", "other", method_a="datamodel", method_b="trak", workers=0)
    return study
