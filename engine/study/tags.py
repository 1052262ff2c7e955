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
from functools import partial
from pathlib import Path
from typing import Literal

from engine import store
from engine.store import layout
from engine.store.cache import FileCache
from engine.store.errors import DataloupeError, StoreError
from engine.store.layout import Split
from engine.store.text import valid_text
from engine.study.names import resolve_algorithm, resolve_row
from engine.study.reader import StudyReader

Action = Literal["tag", "untag", "note", "undo"]
LONGEST_TAG = 40
LONGEST_NOTE = 2000
MOST_TAGS = 20
MOST_NOTES = 100
"""Of one prediction."""
MOST_CHANGES = 20_000
"""Of a study; each is a file."""


@dataclass(frozen=True)
class Change:
    """One change of a prediction's tags and notes.

    Attributes:
        id: Name of its file.
        at: Nanoseconds since 1970.
        algorithm: Whose prediction is tagged; empty for what is about a training example.
        test: The row that it is about, of its split.
        value: The tag, the note, or the id of the change that is undone.
        data: Fingerprint of the data at that time.
        who: Who made it; empty if that is not known.
        split: `train` for decisions about training examples (`engine.study.decisions`).
    """

    id: str
    at: int
    algorithm: str
    test: int
    action: Action
    value: str
    data: str
    who: str = ""
    split: Split = "test"


_CHANGES: FileCache[Change | None] = FileCache(most=2 * MOST_CHANGES)


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


def tag(study: StudyReader, algorithm: str, test: int, name: str, who: str = "") -> Change | None:
    """Add a tag to a prediction; return None if it already has that tag.

    Raises:
        DataloupeError: The tag is not valid, there is no such example, or there are too many tags.
        StoreError: The disk is full.
    """
    name = valid_text(name, LONGEST_TAG, "A tag")
    current = read_tags(study, algorithm).get(test, TagsAndNotes())
    if name in current.tags:
        return None
    _check_room(len(current.tags), MOST_TAGS, "tags")
    return _write(study, algorithm, test, "tag", name, who)


def untag(study: StudyReader, algorithm: str, test: int, name: str, who: str = "") -> Change | None:
    """Remove a tag; return None if the prediction does not have it. Raises as `tag`."""
    current = read_tags(study, algorithm).get(test, TagsAndNotes())
    return _write(study, algorithm, test, "untag", name, who) if name in current.tags else None


def note(study: StudyReader, algorithm: str, test: int, text: str, who: str = "") -> Change:
    """Add a note to a prediction. Raises as `tag`."""
    text = text.strip()
    if not text or len(text) > LONGEST_NOTE:
        raise DataloupeError(f"A note has 1 to {LONGEST_NOTE:,} characters.")
    current = read_tags(study, algorithm).get(test, TagsAndNotes())
    _check_room(len(current.notes), MOST_NOTES, "notes")
    return _write(study, algorithm, test, "note", text, who)


def author_of_tag(study: StudyReader, algorithm: str, test: int, name: str) -> str:
    """Who added a tag; empty if that is not known."""
    found = [
        one.who
        for one in changes(study, algorithm)
        if (one.test, one.action, one.value) == (test, "tag", name)
    ]
    return found[-1] if found else ""


def undo(study: StudyReader, algorithm: str, test: int, who: str = "") -> Change | None:
    """Revert and return the newest change, regardless of who made it; None if there is none."""
    current = read_tags(study, algorithm).get(test)
    if current is None or current.last is None:
        return None
    _write(study, algorithm, test, "undo", current.last.id, who)
    return current.last


def read_tags(study: StudyReader, algorithm: str) -> dict[int, TagsAndNotes]:
    """Tags and notes of every prediction that has, or had, any."""
    return replay(changes(study, algorithm))


def changes(study: StudyReader, algorithm: str, split: Split = "test") -> list[Change]:
    """All changes for the study's data, oldest first.

    Broken files are skipped; `dataloupe doctor` lists them.
    """
    every = [_CHANGES.get(path, partial(_change, path)) for path in layout.triage_files(study.root)]
    wanted = algorithm, split, study.dataset.fingerprint
    mine = [one for one in every if one and (one.algorithm, one.split, one.data) == wanted]
    return sorted(mine, key=lambda one: (one.at, one.id))


def _change(path: Path) -> Change | None:
    """A stored change; None if its file is broken."""
    try:
        return Change(**store.read_json(path))
    except (StoreError, TypeError):
        return None


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


def _check_room(count: int, most: int, what: str) -> None:
    if count >= most:
        raise DataloupeError(f"A prediction has at most {most} {what}. Remove one first.")


def _write(
    study: StudyReader, algorithm: str, test: int, action: Action, value: str, who: str
) -> Change:
    algorithm, test = resolve_algorithm(study, algorithm), resolve_row(study, "test", int(test))
    return write_change(study, algorithm, test, action, value, who)


def write_change(
    study: StudyReader,
    algorithm: str,
    row: int,
    action: Action,
    value: str,
    who: str,
    split: Split = "test",
) -> Change:
    """Store one change; its algorithm and row are known to exist.

    Raises:
        DataloupeError: There are too many changes, or the folder cannot be written.
    """
    if len(layout.triage_files(study.root)) >= MOST_CHANGES:
        raise DataloupeError(
            f"This study has {MOST_CHANGES:,} changes of tags and notes, the most there can be."
        )
    name, data = secrets.token_hex(8), study.dataset.fingerprint
    change = Change(name, time.time_ns(), algorithm, row, action, value, data, who, split)
    path = layout.triage_file(study.root, name)
    with store.writing_to(path.parent):
        store.write_json(path, asdict(change), data)
    return change
