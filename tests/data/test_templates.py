"""The shipped specs, with and without their commented parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine import Study
from engine.data.templates import spec_from_template, template_names


@pytest.mark.parametrize("name", template_names())
def test_every_template_is_a_valid_spec(name: str, tmp_path: Path) -> None:
    assert Study.create(tmp_path / "study", spec_from_template(name, "x")).spec.algorithms


@pytest.mark.parametrize("name", ["photos", "photos-smooth", "text", "transformers"])
def test_its_run_bank_can_be_uncommented(name: str, tmp_path: Path) -> None:
    text = spec_from_template(name, "x")
    assert Study.create(tmp_path / "as-it-is", text).spec.subset_runs.masks == 0
    uncommented = re.sub(r"(?m)^# (\[subset_runs\]|masks = \d+)$", r"\1", text)
    assert Study.create(tmp_path / "study", uncommented).spec.subset_runs.masks == 200
