"""Benchmarks whose parts take minutes to hours: some are run, and the others are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks._report import device, log, versions

_ABOUT = ("device", "versions", "minutes_of_core")


def run_parts(
    folder: Path, parts: Mapping[str, Callable[[], dict[str, Any]]], variable: str
) -> dict[str, Any]:
    """Run the parts that an environment variable names, or all, and add those measured before.

    Args:
        folder: Where results are kept, a JSON file each.
        parts: Name → a function that gives its keys.
        variable: Names of parts, separated by commas.

    Returns:
        The keys of all parts, and `device_of`, `versions_of` and `minutes_of_core_of` of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in os.environ.get(variable, ",".join(parts)).split(","):
        log(name)
        start = core_seconds()
        part = {**parts[name](), "device": device(), "versions": versions()}
        part["minutes_of_core"] = round((core_seconds() - start) / 60, 2)
        (folder / f"{name}.json").write_text(json.dumps(part), encoding="utf-8")
    found: dict[str, Any] = {}
    for name in parts:
        file = folder / f"{name}.json"
        if file.exists():
            part = json.loads(file.read_text(encoding="utf-8"))
            for key in _ABOUT:
                if key in part:
                    found.setdefault(f"{key}_of", {})[name] = part.pop(key)
            found |= part
    return found


def core_seconds() -> float:
    """Seconds of one core that this process and the ended ones that it started have used."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
