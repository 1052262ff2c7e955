"""A study with planted faults that several files share."""

from __future__ import annotations

import pytest

from engine import Study
from tests.builders.built_once import built_once
from tests.builders.planted_faults import spoilt_study


@pytest.fixture(scope="session")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three easy classes with copies and wrong labels. Read it, never write into it."""
    return Study.open(built_once(tmp_path_factory, "spoilt", spoilt_study))
