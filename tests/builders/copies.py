"""A copy of a built study, to write into."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine import Study


def copy_of(study: Study, folder: Path) -> Study:
    """The same study in `folder`, which must not be there yet."""
    return Study.open(shutil.copytree(study.root, folder))
