"""The planted shortcut that ships as a case study, in the size that a test wants."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from engine.api import Study
from engine.applications.case_studies.shortcut import CARRIES
from engine.data.templates import spec_from_template
from engine.store.layout import SPLITS


def write_planted(
    root: Path, train_limit: int = 2000, test_limit: int = 500, checkpoints: int = 5
) -> Study:
    """The study, not built: `covered` does not see the patch that `sees` sees."""
    values = {"train_limit": train_limit, "test_limit": test_limit, "checkpoints": checkpoints}
    spec = spec_from_template("case-shortcut")
    names = "|".join(values)
    spec = re.sub(rf"(?m)^({names}) = .*", lambda found: f"{found[1]} = {values[found[1]]}", spec)
    spec = spec.replace("[search]\n", "[search]\nmap_epochs = 20\n")
    return Study.create(root, spec, trust=True)


def carries(study: Study) -> dict[str, np.ndarray]:
    """Which rows of each split carry the patch (bool)."""
    return {split: study.table(split)[CARRIES].to_numpy(bool) for split in SPLITS}
