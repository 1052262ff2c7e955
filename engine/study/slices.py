"""Saved slices: named sets of test examples in a study.

    save_slice(study, "hard coats", {"label": "Coat", "result": "wrong", "sort": "margin"})
    [one.name for one in saved_slices(study)[0]]

A slice holds parameters of the dashboard's URL and the fingerprint of its data. Each is a separate
file, written atomically, so several people can save at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine import store
from engine.store import layout
from engine.store.errors import DataloupeError, MissingFile, StoreError
from engine.store.text import valid_text
from engine.study.reader import StudyReader

LONGEST_NAME = 80
MOST_SLICES = 200


@dataclass(frozen=True)
class SavedSlice:
    """A slice with its name.

    Attributes:
        parameters: Parameter of the URL → value. They are not checked here: the page that opens the
            slice checks them like those of any URL.
        data: Fingerprint of the data at that time.
        who: Who saved it; empty if that is not known.
    """

    name: str
    parameters: dict[str, str]
    data: str
    who: str = ""


def saved_slices(study: StudyReader) -> tuple[list[SavedSlice], list[str]]:
    """(the slices by name, one line per broken file)."""
    found, problems = [], []
    for path in layout.slice_files(study.root):
        try:
            content = store.read_json(path)
            parameters = {str(key): str(value) for key, value in content["parameters"].items()}
            who = str(content.get("who", ""))
            found.append(SavedSlice(str(content["name"]), parameters, str(content["data"]), who))
        except MissingFile:
            continue  # deleted just now
        except (StoreError, KeyError, AttributeError):
            problems.append(f"{path} is not a complete saved slice. Remove it, or restore a copy.")
    return sorted(found, key=lambda one: one.name.casefold()), problems


def save_slice(
    study: StudyReader, name: str, parameters: Mapping[str, str], who: str = ""
) -> SavedSlice:
    """Save a slice under a name; surrounding space is ignored.

    Raises:
        DataloupeError: The name is not valid or is taken, there are too many slices, or the
            study's folder cannot be written.
    """
    name = valid_text(name, LONGEST_NAME, "A slice's name")
    path = layout.slice_file(study.root, name)
    if path.exists():
        raise DataloupeError(
            f"There is already a slice “{name}”. Choose a different name, or delete that one first."
        )
    if len(layout.slice_files(study.root)) >= MOST_SLICES:
        raise DataloupeError(f"A study can have at most {MOST_SLICES} slices. Delete one first.")
    saved = SavedSlice(name, dict(parameters), study.dataset.fingerprint, who)
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
