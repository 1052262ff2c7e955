"""Tags and notes that people put on predictions, with undo.

Every change is a separate file, written atomically and never changed again, so two people can work
at the same time. The current tags and notes result from replaying all changes in order of time. An
undo is also a change.

    tag(study, "cnn", 17, "mislabelled")
    read_tags(study, "cnn")[17].tags
    undo(study, "cnn", 17)
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Literal

from engine import store
from engine.store import layout
from engine.store.errors import DataloupeError, StoreError
from engine.store.text import valid_text
from engine.study.names import resolve_algorithm, resolve_row
from engine.study.reader import StudyReader

Action = Literal["tag", "untag", "note", "undo"]
LONGEST_TAG = 40
LONGEST_NOTE = 2000


@dataclass(frozen=True)
class Change:
    """One change of a prediction's tags and notes.

    Attributes:
        id: Name of its file.
        at: Nanoseconds since 1970.
        test: The test row whose prediction by the algorithm is tagged.
        value: The tag, the note, or the id of the change that is undone.
        data: Fingerprint of the data at that time.
    """

    id: str
    at: int
    algorithm: str
    test: int
    action: Action
    value: str
    data: str


@dataclass
class TagsAndNotes:
    """The current tags and notes of one prediction.

    Attributes:
        tags: In the order they were added.
        notes: Oldest first.
        last: The change that `undo` would revert; None if there is none.
    """

    tags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    last: Change | None = None


def tag(study: StudyReader, algorithm: str, test: int, name: str) -> Change | None:
    """Add a tag to a prediction; return None if it already has that tag.

    Raises:
        DataloupeError: The tag is not valid, or there is no such example.
        StoreError: The disk is full.
    """
    name = valid_text(name, LONGEST_TAG, "A tag")
    current = read_tags(study, algorithm).get(test, TagsAndNotes())
    return None if name in current.tags else _write(study, algorithm, test, "tag", name)


def untag(study: StudyReader, algorithm: str, test: int, name: str) -> Change | None:
    """Remove a tag; return None if the prediction does not have it. Raises as `tag`."""
    current = read_tags(study, algorithm).get(test, TagsAndNotes())
    return _write(study, algorithm, test, "untag", name) if name in current.tags else None


def note(study: StudyReader, algorithm: str, test: int, text: str) -> Change:
    """Add a note to a prediction. Raises as `tag`."""
    text = text.strip()
    if not text or len(text) > LONGEST_NOTE:
        raise DataloupeError(f"A note has 1 to {LONGEST_NOTE:,} characters.")
    return _write(study, algorithm, test, "note", text)


def undo(study: StudyReader, algorithm: str, test: int) -> Change | None:
    """Revert and return the newest change, regardless of who made it; None if there is none."""
    current = read_tags(study, algorithm).get(test)
    if current is None or current.last is None:
        return None
    _write(study, algorithm, test, "undo", current.last.id)
    return current.last


def read_tags(study: StudyReader, algorithm: str) -> dict[int, TagsAndNotes]:
    """Tags and notes of every prediction that has, or had, any."""
    return replay(changes(study, algorithm))


def changes(study: StudyReader, algorithm: str) -> list[Change]:
    """All changes for the study's data, oldest first.

    Broken files are skipped; `dataloupe doctor` lists them.
    """
    found = []
    for path in layout.triage_files(study.root):
        try:
            found.append(Change(**store.read_json(path)))
        except (StoreError, TypeError):
            continue
    data = study.dataset.fingerprint
    mine = [one for one in found if one.algorithm == algorithm and one.data == data]
    return sorted(mine, key=lambda one: (one.at, one.id))


def replay(changes: Iterable[Change]) -> dict[int, TagsAndNotes]:
    """The tags and notes after applying these changes in order."""
    every = list(changes)
    undone = {one.value for one in every if one.action == "undo"}
    found: dict[int, TagsAndNotes] = {}
    for one in every:
        current = found.setdefault(one.test, TagsAndNotes())
        if one.action == "undo" or one.id in undone:
            continue
        if one.action == "note":
            current.notes.append(one.value)
        elif (one.action == "tag") == (one.value in current.tags):
            continue  # no effect, so there is nothing to undo
        elif one.action == "tag":
            current.tags.append(one.value)
        else:
            current.tags.remove(one.value)
        current.last = one
    return found


def _write(study: StudyReader, algorithm: str, test: int, action: Action, value: str) -> Change:
    algorithm, test = resolve_algorithm(study, algorithm), resolve_row(study, "test", int(test))
    name, data = secrets.token_hex(8), study.dataset.fingerprint
    change = Change(name, time.time_ns(), algorithm, test, action, value, data)
    path = layout.triage_file(study.root, name)
    with store.writing_to(path.parent):
        store.write_json(path, asdict(change), data)
    return change
