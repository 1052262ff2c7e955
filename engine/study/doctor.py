"""Verify every file of a study against its checksum."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine import store
from engine.store import layout
from engine.store.errors import StoreError
from engine.store.layout import SPLITS
from engine.store.text import counted
from engine.study.methods import imported_methods
from engine.study.reader import StudyReader


@dataclass(frozen=True)
class Report:
    """The result of `examine`: one line per broken file, and a summary."""

    broken: list[str]
    summary: str


def examine(study: StudyReader, repair: bool = False) -> Report:
    """Read every file of the study and compare it with its checksum.

    Args:
        repair: Also remove the broken files, so that the next build makes only those again. Files
            that people made are renamed to `.broken` instead.
    """
    sheets = _sheet_digests(study)
    checks: dict[str, Callable[[Path], object]] = {
        ".safetensors": lambda path: store.read_tensors(path, verify=True),
        ".parquet": lambda path: store.read_table(path, verify=True),
        ".json": store.read_json,
        ".webp": lambda path: _check_digest(path, sheets.get(path)),
    }
    checks_of = dict.fromkeys(layout.uploaded_weights_files(study.root), _check_upload)
    imports = _imports(study)
    broken: list[str] = []
    removed: set[Path] = set()
    files = [
        path
        for path in sorted(study.root.rglob("*"))
        if path.suffix in checks and not path.name.startswith(".")
    ]
    for path in files:
        try:
            checks_of.get(path, checks[path.suffix])(path)
        except StoreError as error:
            about = next(
                (about for folder, about in imports.items() if folder in path.parents), None
            )
            if about is not None:
                broken.append(
                    f"{path} is broken. It was imported, so only importing it again repairs it."
                )
                removed |= {path, about}  # the import is useless without this file
            elif layout.is_of_people(study.root, path) and path not in checks_of:
                broken.append(
                    f"{path} is broken. A person made it, so no build makes it again; --repair "
                    f"renames it to {path.name}.broken."
                )
                removed.add(path)
            else:
                broken.append(str(error))
                removed.add(path)
    if repair:
        for path in removed:
            if layout.is_of_people(study.root, path):
                path.rename(path.with_name(f"{path.name}.broken"))
            else:
                path.unlink(missing_ok=True)
    if not broken:
        summary = f"{counted(len(files), 'file')}, all intact."
    elif repair:
        summary = (
            f"Broken: {len(broken)} of {counted(len(files), 'file')}. They are removed, or renamed "
            f"if a person made them. `dataloupe build {study.root}` makes only the removed ones "
            "again."
        )
    else:
        summary = (
            f"Broken: {len(broken)} of {counted(len(files), 'file')}. "
            f"`dataloupe doctor {study.root} --repair` removes them, and the next build makes only "
            "those again."
        )
    return Report(broken, summary)


def _imports(study: StudyReader) -> dict[Path, Path]:
    """Folder of each imported method or run bank → the file that describes it."""
    found = {}
    for algorithm in study.spec.algorithms:
        bank = layout.bank_import_file(study.root, algorithm)
        found[bank.parent] = bank
        with contextlib.suppress(StoreError):  # reported when that file is examined
            for method in imported_methods(study, algorithm):
                about = layout.method_file(study.root, algorithm, method)
                found[about.parent] = about
    return found


def _sheet_digests(study: StudyReader) -> dict[Path, str]:
    """SHA-256 of every sprite sheet, as recorded with the arrays of the same rows."""
    digests = {}
    for split in SPLITS:
        folder = layout.arrays_file(study.root, split, 0).parent
        for arrays in folder.glob("*.safetensors"):
            with contextlib.suppress(StoreError):  # reported when that file is examined
                for name, digest in store.read_metadata(arrays).get("sheets", {}).items():
                    digests[folder / name] = digest
    return digests


def _check_upload(path: Path) -> None:
    """Check that an uploaded file has not changed: its name is its digest."""
    if store.file_digest(path) != path.stem:
        raise StoreError(
            f"{path} is broken: it has changed since it was uploaded. Upload it again."
        )


def _check_digest(path: Path, digest: str | None) -> None:
    """Compare a file with its digest.

    None passes: then the arrays that hold the digest are broken, and a build makes them and their
    sheets again.
    """
    if digest is not None and store.file_digest(path) != digest:
        raise store.broken(path, "its content does not match its checksum")
