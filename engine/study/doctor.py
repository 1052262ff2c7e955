"""Verify every byte of every file of a study against its checksum.

It needs no other file to be whole: not `store.json`, and of study.toml only that it can be read.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine import store
from engine.store import layout
from engine.store.errors import MissingFile, StoreError
from engine.store.io_errors import reading_store, writing_store
from engine.store.layout import SPLITS
from engine.store.sealed_rows import check_database
from engine.store.text import counted
from engine.store.walk import paths_in
from engine.study.methods import imported_methods
from engine.study.reader import StudyReader

_CHECKS: dict[str, Callable[[Path], object]] = {
    ".safetensors": lambda path: store.read_tensors(path, verify=True),
    ".parquet": lambda path: store.read_table(path, verify=True),
    ".json": store.read_json,
    ".sqlite": check_database,
}
_SHEET = ".webp"
_SHOWN_LINES = 3


@dataclass(frozen=True)
class Report:
    """The result of `examine`.

    Attributes:
        broken: One line per broken file.
        notes: One line for what has changed, but is not known to be broken.
    """

    broken: list[str]
    notes: list[str]
    summary: str


def examine(study: StudyReader, repair: bool = False) -> Report:
    """Read every file of the study and compare it with its checksum.

    Args:
        repair: Also remove the broken files, so that the next build makes only those again. Files
            that people made are renamed to `.broken` instead.
    """
    files = [path for path in layout.stored_files(study.root) if path.suffix in (*_CHECKS, _SHEET)]
    problems: dict[Path, StoreError] = {}
    for path in files:
        if path.suffix != _SHEET and (problem := _problem(study, path)) is not None:
            problems[path] = problem
    for path in _changed_sheets(study, files, problems):
        problems[path] = store.broken(path, "its content does not match its checksum")
    # What was there a moment ago and is missing now is not broken: somebody else removed it.
    problems = {
        path: problem for path, problem in problems.items() if not isinstance(problem, MissingFile)
    }
    imports = _imports(study, problems)
    broken: list[str] = []
    removed: set[Path] = set()
    for path, problem in sorted(problems.items()):
        line, also = _explain(study, path, problem, imports)
        broken.append(line)
        removed |= {path, *also}
    if repair:
        _set_aside(study, removed)
    return Report(broken, _notes(study, problems), _summary(study, len(broken), len(files), repair))


def problem_of(study: StudyReader, path: Path) -> str | None:
    """What `examine` says of one file; None if it is whole. study.toml is a file, too."""
    if path == layout.spec_file(study.root):
        return next(iter(_notes(study, {})), None)
    if path.suffix == _SHEET:
        whole = not _changed_sheets(study, [path], {})
        return None if whole else "its content does not match its checksum"
    found = _problem(study, path)
    return None if found is None else str(found)


def _problem(study: StudyReader, path: Path) -> StoreError | None:
    try:
        if path == layout.uploaded_weights_file(study.root, path.stem):
            _check_upload(path)
        else:
            _CHECKS[path.suffix](path)
    except StoreError as error:
        return error
    return None


def _explain(
    study: StudyReader, path: Path, problem: StoreError, imports: dict[Path, Path]
) -> tuple[str, set[Path]]:
    """What to say of a broken file, and what else is of no use without it."""
    about = next((about for folder, about in imports.items() if folder in path.parents), None)
    if about is not None:
        line = f"{path} is broken. It was imported, so only importing it again repairs it."
        return line, {about}
    if path == layout.jobs_file(study.root):
        line = f"{path} is broken. Only the list of jobs is in it"
        return f"{line}; --repair renames it to {path.name}.broken.", set()
    if layout.is_of_people(study.root, path) and path.parent.name != "files":
        line = (
            f"{path} is broken. A person made it, so no build makes it again; --repair renames it "
            f"to {path.name}.broken."
        )
        return line, set()
    return str(problem), set()


def _set_aside(study: StudyReader, paths: set[Path]) -> None:
    for path in paths:
        with writing_store(path):
            if layout.is_of_people(study.root, path):
                with contextlib.suppress(FileNotFoundError):
                    path.rename(path.with_name(f"{path.name}.broken"))
            else:
                path.unlink(missing_ok=True)


def _summary(study: StudyReader, broken: int, files: int, repair: bool) -> str:
    if not broken:
        return f"{counted(files, 'file')}, all intact."
    of = f"Broken: {broken} of {counted(files, 'file')}."
    if repair:
        return (
            f"{of} They are removed, or renamed if a person made them. "
            f"`dataloupe build {study.root}` makes only the removed ones again."
        )
    return (
        f"{of} `dataloupe doctor {study.root} --repair` removes them, and the next build makes "
        "only those again."
    )


def _notes(study: StudyReader, problems: dict[Path, StoreError]) -> list[str]:
    """Whether study.toml is still the one of the last build. A person may have changed it, so this
    is no damage; but nobody need have noticed a flipped bit, either."""
    path = layout.format_file(study.root)
    if path in problems or not path.exists():
        return []
    built = store.read_json(path).get("spec")
    spec = layout.spec_file(study.root)
    now = spec.read_text(encoding="utf-8")
    if not isinstance(built, str) or built == now:
        return []
    changed = [
        line.rstrip("\n")
        for line in difflib.unified_diff(built.splitlines(), now.splitlines(), n=0, lineterm="")
        if not line.startswith(("---", "+++", "@@"))
    ]
    shown = "; ".join(changed[:_SHOWN_LINES]) or "white space"
    more = " …" if len(changed) > _SHOWN_LINES else ""
    return [
        f"{spec} has changed since the last build ({shown}{more}). If you changed it, "
        f"`dataloupe build {study.root}` follows; if not, change it back."
    ]


def _imports(study: StudyReader, problems: dict[Path, StoreError]) -> dict[Path, Path]:
    """Folder of each imported method or run bank → the file that describes it."""
    found = {}
    for algorithm in study.spec.algorithms:
        bank = layout.bank_import_file(study.root, algorithm)
        found[bank.parent] = bank
        try:
            for method in imported_methods(study, algorithm):
                about = layout.method_file(study.root, algorithm, method)
                found[about.parent] = about
        except StoreError:  # the description itself is broken
            folder = layout.methods_folder(study.root, algorithm)
            found |= {path.parent: path for path in problems if path.parent.parent == folder}
    return found


def _changed_sheets(
    study: StudyReader, files: Sequence[Path], problems: dict[Path, StoreError]
) -> list[Path]:
    """Sprite sheets among these files that differ from what the arrays of the same rows record.

    Broken arrays do not count: a build makes them and their sheets again.
    """
    digests = {}
    for split in SPLITS:
        folder = layout.arrays_file(study.root, split, 0).parent
        for arrays in paths_in(folder, "*.safetensors"):
            with contextlib.suppress(MissingFile):  # removed just now
                if arrays not in problems:
                    for name, digest in store.read_metadata(arrays).get("sheets", {}).items():
                        digests[folder / name] = digest
    found = []
    for path in files:
        with contextlib.suppress(MissingFile):
            if path in digests and digests[path] != _digest(path):
                found.append(path)
    return found


def _digest(path: Path) -> str:
    with reading_store(path):
        return store.file_digest(path)


def _check_upload(path: Path) -> None:
    """Check that an uploaded file has not changed: its name is its digest."""
    if _digest(path) != path.stem:
        raise StoreError(
            f"{path} is broken: it has changed since it was uploaded. Upload it again."
        )
