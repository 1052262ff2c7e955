"""Folders of pictures: one subfolder for each class."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import datasets
from PIL import Image

from engine.data.picture_budget import FORMATS
from engine.data.pictures import SUFFIXES
from engine.data.reading.rows import Rows
from engine.store.errors import DataError
from engine.store.text import counted

_SYSTEM_FILES: Final = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir"}


def is_hidden(name: str) -> bool:
    """Whether a file or folder is no data: hidden, or left by a file manager or an editor."""
    return name.startswith((".", "~$")) or name.lower() in _SYSTEM_FILES


def is_picture(path: Path) -> bool:
    """Whether a file is a picture: by its suffix, or by its content where the suffix is unknown."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Image.DecompressionBombError:
        return True  # which `read_picture` refuses, with the reason
    except Exception:  # whatever a decoder raises, it is not a picture that can be read
        return False


def has_class_folders(folder: Path, at_least: int = 1) -> bool:
    """Whether a folder has subfolders with pictures in them, so many at least."""
    with_pictures = (
        entry
        for entry in _entries(folder)
        if _is_folder(entry) and _has_picture(Path(entry.path), ())
    )
    return len(list(itertools.islice(with_pictures, at_least))) == at_least


def _has_picture(folder: Path, above: tuple[tuple[int, int], ...]) -> bool:
    here = _identity(folder)
    if here in above:
        return False
    folders = []
    with os.scandir(folder) as entries:  # not listed to its end, where it begins with pictures
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if _is_folder(entry):
                folders.append(Path(entry.path))
            elif _is_file(entry) and is_picture(Path(entry.path)):
                return True
    return any(_has_picture(inner, (*above, here)) for inner in folders)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name, without what is hidden."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    return [entry for entry in entries if not is_hidden(entry.name)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


@dataclass
class _Found:
    """What a walk through class folders found so far."""

    files: list[str] = field(default_factory=list)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Files that are not data, by kind: its singular and its plural."""
    seen: dict[tuple[int, int], str] = field(default_factory=dict)
    """Folders, by device and inode, with their paths below the split's folder."""


def read_class_folders(folder: Path) -> Rows:
    """Pictures of class folders, at any depth below these, sorted by path. Links are followed.

    Raises:
        DataError: There are none; a link leads to a folder around it; or two classes are the same
            folder.
    """
    found = _Found()
    files: list[str] = []
    labels: list[str] = []
    notes: list[str] = []
    around = tuple(_identity(f) for f in (folder.resolve(), *folder.resolve().parents))
    for entry in _entries(folder):
        if not _is_folder(entry):
            _leave_out(Path(entry.path), found)
            continue
        found.files = []
        _walk(folder, entry.name, around, found, notes)
        if not found.files:
            notes.append(f"The folder {folder.name}/{entry.name} holds no pictures.")
        files += sorted(found.files)
        labels += [entry.name] * len(found.files)
    if not files:
        raise DataError(
            f"{folder} holds no pictures. It should have one subfolder for each class, "
            "with its pictures inside." + _shown_left_out(found)
        )
    if found.left_out:
        notes.append(f"Not read in {folder.name}:{_shown_left_out(found)}")
    table = datasets.Dataset.from_dict({"file": files, "label": labels})
    return Rows(table, folder, tuple(notes))


def _walk(
    root: Path, below: str, above: tuple[tuple[int, int], ...], found: _Found, notes: list[str]
) -> None:
    here = _identity(root / below)
    if here in above:
        raise DataError(
            f"{root / below} is a link to a folder around it, which has no end. Remove the link."
        )
    first = found.seen.setdefault(here, below)
    if first != below:
        if Path(first).parts[0] != Path(below).parts[0]:
            raise DataError(
                f"{root / below} and {root / first} are the same folder (by a link), in two "
                "classes. Remove one of them."
            )
        notes.append(f"{root.name}/{below} is the same folder as {first}, and is read once.")
        return
    for entry in _entries(root / below):
        path = f"{below}/{entry.name}"
        if _is_folder(entry):
            _walk(root, path, (*above, here), found, notes)
        elif _is_file(entry) and is_picture(Path(entry.path)):
            found.files.append(path)
        else:
            _leave_out(Path(entry.path), found)


def _identity(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _leave_out(path: Path, found: _Found) -> None:
    if not path.exists():
        kind = "broken link", "broken links"
    elif is_picture(path):
        kind = "picture outside the class folders", "pictures outside the class folders"
    elif not path.suffix:
        kind = "file without a suffix", "files without a suffix"
    else:
        suffix = path.suffix.lower()
        kind = f"{suffix} file", f"{suffix} files"
    found.left_out[kind] += 1


def _shown_left_out(found: _Found) -> str:
    kinds = sorted(found.left_out.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(counted(count, *kind) for kind, count in kinds[:8])
    return f" {shown}{', ...' if len(kinds) > 8 else ''}." if kinds else ""
