"""Does a study that somebody sends run code when it is opened, built or asked?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks._report import log, report
from engine.api import Study
from tests.builders.studies_that_name_code import WAYS, code_run_from_study
from tests.conftest import SMALL_STUDY  # it also gives trust a folder of its own


def measure() -> dict[str, Any]:
    """Number of ways, of those that ran code, and which doors they came through."""
    with tempfile.TemporaryDirectory(prefix="dataloupe-code-") as folder:
        study = Study.create(Path(folder) / "study", SMALL_STUDY)
        study.build(workers=0)
        tries = Path(folder) / "tries"
        tries.mkdir()
        ran = code_run_from_study(study, tries)
    log(f"{len(WAYS)} ways: {ran}")
    return {"code_ways": len(WAYS), "code_run_from_study": len(ran), "code_run_by": ran}


if __name__ == "__main__":
    report("robustness_code", measure, __doc__ or "")
