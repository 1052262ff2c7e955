"""Are data, models and files that people bring read right, or refused in one line?

Runs the tests that carry the marker `input_case`, each of which is one input, in a process of its
own, and counts them in its report.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks._report import log, report

ROOT = Path(__file__).parent.parent


def measure() -> dict[str, Any]:
    """Number of cases, of right ones, and the names of the others."""
    with tempfile.TemporaryDirectory(prefix="dataloupe-inputs-") as folder:
        path = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-m", "input_case", f"--junit-xml={path}", "tests"]
        log("running the tests of inputs")
        done = subprocess.run(
            command, cwd=ROOT, stdout=sys.stderr, stderr=subprocess.STDOUT, check=False
        )
        if not path.exists():
            raise RuntimeError(f"pytest ended with {done.returncode} and without a report.")
        return counts(path)


def counts(path: Path) -> dict[str, Any]:
    """The results in a report that pytest wrote. What was skipped is not right."""
    # Written by our own pytest a moment ago, so the parser meets no hostile file.
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    wrong = [
        f"{case.get('classname', '')}.{case.get('name', '')}"
        for case in cases
        if any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
    ]
    return {
        "input_cases": len(cases),
        "input_cases_right": len(cases) - len(wrong),
        "input_cases_wrong": wrong,
    }


if __name__ == "__main__":
    report("robustness_inputs", measure, __doc__ or "")
