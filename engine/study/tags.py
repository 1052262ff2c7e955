"""Tags and notes that people put on predictions, with undo.

Every change is a file of its own that is never changed again, written whole or not at all: so two
people who work at once lose nothing, and what stands is what replaying all changes in the order of
their time gives. An undo is a change, too.

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
from engine.store.text import one_line
from engine.study.names import resolve_algorithm, resolve_row
from engine.study.reader import StudyReader

Action = Literal["tag", "untag", "note", "undo"]
LONGEST_TAG = 40
LONGEST_NOTE = 2000


@dataclass(frozen=True)
class Change:
    """One change of a prediction's tags and notes.

    Attributes:
        id: Its file's name.
        at: Nanoseconds since 1970.
        test: The test row; of the algorithm's prediction of it.
        value: The tag, the note, or the id of the change that is undone.
        data: Fingerprint of the data that it was made for.
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
    """What stands of one prediction's changes.

    Attributes:
        tags: In the order they were put on.
        notes: Oldest first.
        last: The change that `undo` takes back; None where there is none.
    """

    tags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    last: Change | None = None


def tag(study: StudyReader, algorithm: str, test: int, name: str) -> Change | None:
    """Put a tag on a prediction; None where it is on already.

    Raises:
        DataloupeError: No proper tag, or no such example. StoreError: The disk is full.
    """
    name = one_line(name, LONGEST_TAG, "A tag")
    standing = read_tags(study, algorithm).get(test, TagsAndNotes())
    return None if name in standing.tags else _write(study, algorithm, test, "tag", name)


def untag(study: StudyReader, algorithm: str, test: int, name: str) -> Change | None:
    """Take a tag off; None where it is off already. Raises as `tag`."""
    standing = read_tags(study, algorithm).get(test, TagsAndNotes())
    return _write(study, algorithm, test, "untag", name) if name in standing.tags else None


def note(study: StudyReader, algorithm: str, test: int, text: str) -> Change:
    """Add a note to a prediction. Raises as `tag`."""
    text = text.strip()
    if not text or len(text) > LONGEST_NOTE:
        raise DataloupeError(f"A note has 1 to {LONGEST_NOTE:,} characters.")
    return _write(study, algorithm, test, "note", text)


def undo(study: StudyReader, algorithm: str, test: int) -> Change | None:
    """Take back the newest change that stands, whoever made it; returns it, None for none."""
    standing = read_tags(study, algorithm).get(test)
    if standing is None or standing.last is None:
        return None
    _write(study, algorithm, test, "undo", standing.last.id)
    return standing.last


def read_tags(study: StudyReader, algorithm: str) -> dict[int, TagsAndNotes]:
    """Tags and notes of every prediction that has any, or had."""
    return replay(changes(study, algorithm))


def changes(study: StudyReader, algorithm: str) -> list[Change]:
    """All changes for the study's data, oldest first. A file that is no whole change is left out:
    `dataloupe doctor` names it."""
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
    """What stands after changes in this order."""
    every = list(changes)
    undone = {one.value for one in every if one.action == "undo"}
    found: dict[int, TagsAndNotes] = {}
    for one in every:
        standing = found.setdefault(one.test, TagsAndNotes())
        if one.action == "undo" or one.id in undone:
            continue
        if one.action == "note":
            standing.notes.append(one.value)
        elif (one.action == "tag") == (one.value in standing.tags):
            continue  # it changed nothing, so there is nothing to undo
        elif one.action == "tag":
            standing.tags.append(one.value)
        else:
            standing.tags.remove(one.value)
        standing.last = one
    return found


def _write(study: StudyReader, algorithm: str, test: int, action: Action, value: str) -> Change:
    algorithm, test = resolve_algorithm(study, algorithm), resolve_row(study, "test", int(test))
    name, data = secrets.token_hex(8), study.dataset.fingerprint
    change = Change(name, time.time_ns(), algorithm, test, action, value, data)
    path = layout.triage_file(study.root, name)
    with store.writing_to(path.parent):
        store.write_json(path, asdict(change), data)
    return change
