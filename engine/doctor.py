"""Verify every file of a study against the checksum it carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from engine import store
from engine.errors import StoreError
from engine.study import Study


@dataclass(frozen=True)
class Report:
    """What `examine` found: one line for each broken file, and a summary."""

    broken: list[str]
    summary: str


def examine(study: Study, repair: bool = False) -> Report:
    """Read every file of the study and compare it with its checksum.

    Args:
        repair: Also remove the broken files, so that the next build makes just them again.
    """
    checks: dict[str, Callable[[Path], object]] = {
        ".safetensors": lambda path: store.read_tensors(path, verify=True),
        ".parquet": store.read_table,
        ".json": store.read_json,
        ".png": _check_picture,
    }
    broken: list[str] = []
    files = [
        path
        for path in sorted(study.root.rglob("*"))
        if path.suffix in checks and not path.name.startswith(".")
    ]
    for path in files:
        try:
            checks[path.suffix](path)
        except StoreError as error:
            broken.append(str(error))
            if repair:
                path.unlink()
    if not broken:
        summary = f"{len(files)} files, all whole."
    elif repair:
        summary = (
            f"{len(broken)} of {len(files)} files were broken and are removed. "
            f"`dataloupe build {study.root}` makes just them again."
        )
    else:
        summary = (
            f"{len(broken)} of {len(files)} files are broken. "
            f"`dataloupe doctor {study.root} --repair` removes them, and the next build makes just "
            "them again."
        )
    return Report(broken, summary)


def _check_picture(path: Path) -> None:
    try:
        with Image.open(path) as picture:
            picture.load()  # PNG chunks carry checksums
    except (OSError, SyntaxError, ValueError) as error:
        raise StoreError(f"{path} is broken: {error}.") from error
