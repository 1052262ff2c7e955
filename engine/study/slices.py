"""Saved slices: named sets of test examples that people keep in a study.

    save_slice(study, "hard coats", {"label": "Coat", "result": "wrong", "sort": "margin"})
    [one.name for one in saved_slices(study)[0]]

A slice is data: parameters of the dashboard's URL. Each is a file of its own, written atomically,
so several people can save at the same time. It carries the fingerprint of its data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine import store
from engine.store import layout
from engine.store.errors import DataloupeError, StoreError
from engine.store.text import valid_text
from engine.study.reader import StudyReader

LONGEST_NAME = 80
MOST_SLICES = 200


@dataclass(frozen=True)
class SavedSlice:
    """A slice with its name.

    Attributes:
        parameters: Parameter of the URL → value, unchecked: whoever opens the slice checks them
            like those of any URL.
        data: Fingerprint of the data that it was saved for.
    """

    name: str
    parameters: dict[str, str]
    data: str


def saved_slices(study: StudyReader) -> tuple[list[SavedSlice], list[str]]:
    """(the slices by name, one line per broken file)."""
    found, problems = [], []
    for path in layout.slice_files(study.root):
        try:
            content = store.read_json(path)
            parameters = {str(key): str(value) for key, value in content["parameters"].items()}
            found.append(SavedSlice(str(content["name"]), parameters, str(content["data"])))
        except (StoreError, KeyError, AttributeError):
            problems.append(f"{path} is not a complete saved slice. Remove it, or restore a copy.")
    return sorted(found, key=lambda one: one.name.casefold()), problems


def save_slice(study: StudyReader, name: str, parameters: Mapping[str, str]) -> SavedSlice:
    """Save a slice under a name; surrounding space is ignored.

    Raises:
        DataloupeError: The name is not valid or is taken, there are too many slices, or the
            study's folder cannot be written.
    """
    name = valid_text(name, LONGEST_NAME, "A slice's name")
    path = layout.slice_file(study.root, name)
    if path.exists():
        raise DataloupeError(
            f"There is a slice “{name}” already. Choose another name, or delete that one first."
        )
    if len(layout.slice_files(study.root)) >= MOST_SLICES:
        raise DataloupeError(f"A study keeps {MOST_SLICES} slices. Delete one first.")
    saved = SavedSlice(name, dict(parameters), study.dataset.fingerprint)
    with store.writing_to(path.parent):
        store.write_json(path, vars(saved), saved.data)
    return saved


def delete_slice(study: StudyReader, name: str) -> None:
    """Remove a saved slice, if it exists.

    Raises:
        DataloupeError: The study's folder cannot be written.
    """
    path = layout.slice_file(study.root, name)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DataloupeError(f"{path} cannot be removed: {error.strerror}.") from error
