"""The database of a study's jobs: one SQLite table in WAL mode, so that readers never wait."""

from __future__ import annotations

import contextlib
import platform
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from engine import store
from engine.store import layout
from engine.store.errors import StoreError
from engine.store.sealed_rows import give_seals, seal_rows

_VERSION = 2
_SECONDS_TO_WAIT = 30.0
"""How long to wait for another process's write before raising an error."""
_SCHEMA = f"""
PRAGMA journal_mode = WAL;
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    home TEXT NOT NULL,          -- see `home`
    kind TEXT NOT NULL,
    title TEXT NOT NULL,
    parameters TEXT NOT NULL,    -- JSON, keys sorted
    status TEXT NOT NULL DEFAULT 'waiting',
    cancelling INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    pid INTEGER,                 -- of the job's process, in this attempt
    done INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    what TEXT NOT NULL DEFAULT '',
    first_done INTEGER,          -- `done` at this attempt's first report, and the time of it
    first_reported REAL,
    reported REAL,
    submitted REAL NOT NULL,     -- times are seconds since 1970
    started REAL,
    ended REAL,
    error TEXT NOT NULL DEFAULT '',
    result TEXT NOT NULL DEFAULT '{{}}',
    who TEXT NOT NULL DEFAULT '' -- who submitted it, if that is known
);
PRAGMA user_version = {_VERSION};
"""


def home(root: Path) -> str:
    """Identify this folder on this machine: a copied or moved study has another home.

    Jobs submitted in another home are never run automatically: a copy of a study must not repeat
    the original's work, and a stranger's study must not start any.

    Returns:
        A fingerprint of the machine, the path and the inode; empty if the folder is gone.
    """
    machine = platform.node()
    with contextlib.suppress(OSError, ValueError):  # a container may have none
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip() or machine
    with contextlib.suppress(OSError):
        found = root.resolve(strict=True)
        return store.fingerprint_of(machine, str(found), found.stat().st_ino)
    return ""


@contextlib.contextmanager
def connected(root: Path, create: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a connection in autocommit mode, and close it at the end.

    Args:
        create: Create the database if it does not exist.

    Raises:
        StoreError: The database does not exist, is broken or of another version, or cannot be
            written.
    """
    path = layout.jobs_file(root)
    if create and not path.exists():
        _create(path)
    connection = None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=_SECONDS_TO_WAIT,
            isolation_level=None,
        )
        connection.row_factory = sqlite3.Row
        give_seals(connection)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            raise StoreError(
                f"{path} was written by another version of Dataloupe (format {version}; this one "
                f"reads {_VERSION}). Upgrade Dataloupe, or remove the file: only the list of jobs "
                "is lost."
            )
        if create:
            _add_who(connection)
        yield connection
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path} cannot be read or written: {error}.") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"{path} is broken ({error}). Remove it: only the list of jobs is lost, and their "
            "results are kept."
        ) from error
    finally:
        if connection is not None:
            connection.close()


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run statements in one transaction that blocks other writers; roll back on any exception."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _add_who(connection: sqlite3.Connection) -> None:
    """Add the column that databases of earlier versions lack; those versions ignore it."""
    names = {row["name"] for row in connection.execute("PRAGMA table_info(jobs)")}
    if "who" not in names:
        with contextlib.suppress(sqlite3.OperationalError):  # another process was first
            connection.execute("ALTER TABLE jobs ADD COLUMN who TEXT NOT NULL DEFAULT ''")


def _create(path: Path) -> None:
    """Create the database under a temporary name and link it into place; the first process wins."""
    try:
        path.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="new-") as folder:
            new = Path(folder) / path.name
            connection = sqlite3.connect(new)
            connection.executescript(_SCHEMA)
            seal_rows(connection, "jobs")
            connection.commit()
            connection.close()
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(new)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path} cannot be created: {error}.") from error
