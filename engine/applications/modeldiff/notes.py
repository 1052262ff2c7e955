"""Names and notes that people give to directions: one file each, next to its comparison.

keep_note(study, comparison, "a", 0, "The patch", "Only pullovers have it.")
notes(study, comparison)["a", 0].name
"""

from __future__ import annotations

import contextlib
import unicodedata
from dataclasses import dataclass

from engine import store
from engine.applications.modeldiff.comparison import read_comparison
from engine.store import layout
from engine.store.errors import DataloupeError, StoreError
from engine.store.text import valid_text
from engine.study.reader import StudyReader

LONGEST_NAME = 80
LONGEST_NOTE = 2000


@dataclass(frozen=True)
class Note:
    """A name and a note for a direction. Untrusted text: escape it when shown."""

    name: str
    note: str


def keep_note(
    study: StudyReader, comparison: str, key: str, number: int, name: str, note: str
) -> None:
    """Set the name and note of a direction; both empty: delete them.

    Args:
        key: `a` for A∖B, `b` for B∖A.
        number: Number of the direction, from 0.

    Raises:
        DataloupeError: There is no such direction, a text is too long, or the folder is not
            writable.
    """
    about = read_comparison(study, comparison)
    if not 0 <= number < len(about["directions"].get(key, [])):
        raise DataloupeError(f"Comparison {comparison} has no direction {key}{number}.")
    name = valid_text(name, LONGEST_NAME, "A direction's name", may_be_empty=True)
    note = unicodedata.normalize("NFC", note).strip()
    if len(note) > LONGEST_NOTE:
        raise DataloupeError(f"A note has up to {LONGEST_NOTE:,} characters.")
    path = layout.direction_note_file(study.root, comparison, key, number)
    with store.writing_to(path.parent):
        if not name and not note:
            path.unlink(missing_ok=True)
        else:
            store.write_json(path, {"name": name, "note": note}, comparison)


def notes(study: StudyReader, comparison: str) -> dict[tuple[str, int], Note]:
    """Notes by (side, number). Broken files are skipped; `doctor` lists them."""
    found = {}
    for path in layout.direction_note_files(study.root, comparison):
        place = path.name.split(".")[1]
        with contextlib.suppress(StoreError, KeyError, ValueError):
            content = store.read_json(path)
            found[place[0], int(place[1:])] = Note(str(content["name"]), str(content["note"]))
    return found
