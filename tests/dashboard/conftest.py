"""Fixtures shared by the tests of several pages."""

from __future__ import annotations

import pytest

from engine.api import Study
from tests.builders.synthetic_study import write_study


@pytest.fixture(scope="module")
def complete_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A synthetic study with everything built: 60 training and 40 test pictures of 8 classes."""
    return write_study(tmp_path_factory.mktemp("studies") / "complete", n_train=60, n_test=40)
