"""What tests of uploads share; `study` is the fixture of each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine import Study
from engine.exchange.uploads.keeping import delete, trial_worker
from engine.running.kept_worker import KeptWorker


@pytest.fixture(scope="module")
def worker(study: Study) -> Iterator[KeptWorker]:
    """Tries out uploads."""
    worker = trial_worker(study)
    yield worker
    worker.end()


@pytest.fixture
def no_upload_stays(study: Study) -> Iterator[None]:
    """Removes what a test uploaded."""
    yield
    for upload in study.uploads:
        delete(study, upload)
