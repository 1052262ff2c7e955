"""What is wrong in a study.toml, in one line a mistake: where, what was found, what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

Tables = Mapping[str, type[BaseModel]]
"""Name of a table in study.toml → its model."""


def explain_mistakes(
    error: ValidationError,
    where: str,
    text: str,
    table: list[str],
    model: type[BaseModel],
    tables: Tables,
) -> str:
    """One line per wrong key; a key of two types has an error from each.

    Args:
        error: From pydantic.
        where: The file.
        text: Its source, to name lines.
        table: The table that was checked; empty for all of the file.
        model: Of that table.
        tables: The models of the tables in it.
    """
    lines: dict[str, list[str]] = {}
    for detail in error.errors():
        found, what = _explain(detail, where, text, table, model, tables)
        lines.setdefault(found, []).append(what)
    return "\n".join(f"{found} {' or '.join(what)}." for found, what in lines.items())


_RENAMED = {"trak.road": "trak.solver"}
"""Keys of older study.toml files, and their new names."""


def _explain(
    detail: Any,
    where: str,
    text: str,
    table: list[str],
    model: type[BaseModel],
    tables: Tables,
) -> tuple[str, str]:
    """(place and what was found there, what is allowed)."""
    keys = table + [str(part) for part in detail["loc"] if not _is_union_branch(part)]
    key = ".".join(keys) or "the file"
    line = _line_of(keys, text)
    place = f"{where}:{line}:" if line else f"{where}:"
    if detail["type"] == "extra_forbidden":
        allowed = _allowed_keys(keys[len(table) : -1], model, tables)
        if key in _RENAMED:
            return f"{place} {key!r} has a new name;", f"write {_RENAMED[key]!r}"
        close = difflib.get_close_matches(keys[-1], allowed, n=1)
        hint = f"did you mean {close[0]!r}" if close else f"allowed: {', '.join(allowed)}"
        return f"{place} unknown key {key!r};", hint
    if detail["type"] == "missing":
        return f"{place} {key!r}", "is missing"
    found = repr(detail.get("input"))
    found = found if len(found) <= 80 else found[:77] + "..."
    message = detail["msg"].removeprefix("Value error, ")
    return f"{place} {key} = {found}:", f"{message[0].lower()}{message[1:]}"


def _is_union_branch(part: Any) -> bool:
    """Pydantic adds the branch of a union ('constrained-float', 'literal[...]') to the key."""
    return isinstance(part, str) and bool(re.search(r"[\[(]|^(float|int|constrained-\w+)$", part))


def _allowed_keys(parents: list[str], model: type[BaseModel], tables: Tables) -> list[str]:
    return sorted((tables[parents[0]] if parents else model).model_fields)


def _line_of(keys: list[str], text: str) -> int | None:
    """Best guess of the line that sets `keys`: the key within its table."""
    table: list[str] = []
    best = None
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if header := re.match(r"\[+\s*([^\]]+?)\s*\]+", stripped):
            table = [part.strip().strip("\"'") for part in header.group(1).split(".")]
            if keys[: len(table)] == table:
                best = best or number
                if keys == table:
                    return number
        elif assignment := re.match(r"([\w.\"'-]+)\s*=", stripped):
            full = table + [part.strip("\"'") for part in assignment.group(1).split(".")]
            if full == keys[: len(full)]:
                return number
    return best
