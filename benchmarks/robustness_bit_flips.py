"""Does `dataloupe doctor` find every flipped bit, in every kind of file of a study?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks._report import log, report
from engine.api import Study
from tests.builders.bit_flips import bit_flips
from tests.conftest import SMALL_STUDY

FLIPS = 1408


def measure() -> dict[str, Any]:
    """Flips of single bits that were taken for a whole file, and that ended in a traceback."""
    with tempfile.TemporaryDirectory(prefix="dataloupe-flips-") as folder:
        study = Study.create(Path(folder) / "study", SMALL_STUDY)
        study.build(workers=0)
        found = bit_flips(study, FLIPS, seed=0)
    log(f"{found['flips']} flips in {found['kinds']} kinds of files: {found['missed']}")
    return {
        "bit_flips": found["flips"],
        "bit_flips_called_whole": found["called_whole"],
        "bit_flips_crashed": found["crashed"],
        "bit_flips_missed": found["missed"],
    }


if __name__ == "__main__":
    report("robustness_bit_flips", measure, __doc__ or "")
