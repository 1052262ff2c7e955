"""Who changed what on the pages of a study, and when: JSON lines in the study.

    record(root, "ada@example.org", "cancel job 3", "done")
    entries(root, newest=100)

The log is rotated: at most `FILES` files of `LARGEST` bytes are kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine import store
from engine.store import layout
from engine.store.io_errors import open_no_link

LARGEST = 2**20
FILES = 5
LONGEST = 300


@dataclass(frozen=True)
class Entry:
    """One change, or one that was refused.

    Attributes:
        when: UTC, ISO 8601.
        who: Address of the person, or the role if there is no login.
        what: The change.
        outcome: `done`, `refused`, or `failed` with the reason.
    """

    when: str
    who: str
    what: str
    outcome: str


def record(root: Path, who: str, what: str, outcome: str) -> None:
    """Add an entry. Raises StoreError if the study's folder cannot be written."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Entry(when, *(_short(text) for text in (who, what, outcome)))
    line = json.dumps(asdict(entry), ensure_ascii=False) + "\n"
    path = layout.audit_log_file(root, 0)
    with store.writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            if path.exists() and path.stat().st_size + len(line) > LARGEST:
                for number in reversed(range(FILES - 1)):
                    older = layout.audit_log_file(root, number)
                    if older.exists():
                        older.replace(layout.audit_log_file(root, number + 1))
            with open_no_link(path, "ab") as file:
                file.write(line.encode())


@contextlib.contextmanager
def _locked(folder: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold the lock on the log's folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def entries(root: Path, newest: int) -> list[Entry]:
    """The newest entries, newest first. Lines that are not whole are skipped."""
    found: list[Entry] = []
    for line in _newest_lines(root):
        if len(found) >= newest:
            break
        try:
            found.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def _newest_lines(root: Path) -> Iterator[str]:
    """The lines of all files, newest first; nobody renames the files meanwhile."""
    paths = [layout.audit_log_file(root, number) for number in range(FILES)]
    with contextlib.suppress(FileNotFoundError), _locked(paths[0].parent, fcntl.LOCK_SH):
        for path in paths:
            yield from reversed(path.read_text(encoding="utf-8", errors="replace").splitlines())


def _short(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= LONGEST else one_line[: LONGEST - 1] + "…"
