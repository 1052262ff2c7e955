"""The command line of every benchmark: its results as JSON, with device and versions."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "numpy", "faiss-cpu", "traker", "kronfluence", "cleanlab", "streamlit")


def report(name: str, measure: Callable[[], dict[str, Any]], description: str) -> None:
    """Run a benchmark from the command line: measure, print the results, and save them on request.

    `--json` prints one JSON object and nothing else on standard output; progress goes to standard
    error. Without it the object is indented. `--save` also writes benchmarks/results/NAME.json.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object on one line")
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}/{name}.json")
    options = parser.parse_args()
    start = time.perf_counter()
    found = measure()
    result = {
        "benchmark": name,
        **found,
        "seconds_in_all": round(time.perf_counter() - start, 1),
        "device": device(),
        "versions": versions(),
    }
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def log(text: str) -> None:
    """Print progress to standard error, apart from the results."""
    print(text, file=sys.stderr, flush=True)


def device() -> dict[str, Any]:
    """Processor, cores, load in the last minute (noisy timings above 1 per core), memory, GPU."""
    result: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
    }
    torch = sys.modules.get("torch")  # without torch a benchmark uses no GPU
    if torch is not None and torch.cuda.is_available():
        result["gpu"] = torch.cuda.get_device_name()
    return result


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results depend on."""
    result = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return result
