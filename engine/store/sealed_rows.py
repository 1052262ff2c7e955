"""Checksums of a SQLite database that many processes write: one for each row, one for the schema.

SQLite rewrites its file in place, so the whole file cannot carry a checksum (`engine.store.seal`).
Triggers keep one in each row instead. Bytes that SQLite does not use are not covered.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from engine.store.errors import StoreError
from engine.store.files import broken, fingerprint_of

_FUNCTION = "dataloupe_seal"


def give_seals(connection: sqlite3.Connection) -> None:
    """Let a connection write to sealed tables; every writer needs this."""
    connection.create_function(
        _FUNCTION, -1, lambda *values: fingerprint_of(*values), deterministic=True
    )


def seal_rows(connection: sqlite3.Connection, table: str) -> None:
    """Add a checksum to each row of a new table, and the schema's to the file's header."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(f"NEW.{name}" for name in columns)
    key, names = columns[0], ", ".join(columns)
    change = f"BEGIN UPDATE {table} SET seal = {_FUNCTION}({values}) WHERE {key} = NEW.{key}; END"
    connection.execute(f"ALTER TABLE {table} ADD COLUMN seal TEXT")
    connection.execute(f"CREATE TRIGGER sealed_insert AFTER INSERT ON {table} {change}")
    connection.execute(f"CREATE TRIGGER sealed_update AFTER UPDATE OF {names} ON {table} {change}")
    connection.execute(f"PRAGMA application_id = {_schema_number(connection)}")


def check_database(path: Path) -> None:
    """Check the structure, the schema and every row of a database with sealed tables.

    Raises:
        StoreError: It is broken, or cannot be read.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)
        try:
            problem = _problem(connection)
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        # Text that cannot be decoded has no code.
        code = getattr(error, "sqlite_errorcode", None)
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY):
            raise StoreError(f"{path} cannot be read: {error}.") from error
        raise broken(path, str(error)) from error
    except (sqlite3.Error, ValueError, TypeError, ArithmeticError) as error:
        raise broken(path, str(error)) from error
    if problem:
        raise broken(path, problem)


def _problem(connection: sqlite3.Connection) -> str:
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        return " ".join(str(found).split())
    (number,) = connection.execute("PRAGMA application_id").fetchone()
    if number != _schema_number(connection):
        return "its schema does not match its checksum"
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    for (table,) in tables.fetchall():
        for *values, seal in connection.execute(f'SELECT * FROM "{table}"'):
            if seal != fingerprint_of(*values):
                return f"row {values[0]} of its table {table} does not match its checksum"
    return ""


def _schema_number(connection: sqlite3.Connection) -> int:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(fingerprint_of(version, rows.fetchall())[:7], 16)
