"""Output of the verbs: plain text, untruncated tables, JSON.

Ids, labels, names and notes are other people's text. These consoles interpret no markup and no
emoji codes, so `[subset_runs]` and `:memo:` are printed literally. To style a part of a sentence,
use `rich.text.Text`.
"""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Column, Table

WIDEST = 100_000
"""Width of an output that is not a terminal: more columns than any table needs."""


WIDE = 200
"""Most characters of a text shown in one line, whatever the width."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # as from `print`; Rich itself would exit with code 1


def console(stderr: bool = False) -> Console:
    """A console for standard output, or standard error."""
    made = _Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not is_terminal(made):
        made.width = WIDEST
    return made


def is_terminal(shown: Console) -> bool:
    """Whether the console is a terminal, and not a pipe or a file."""
    return shown.file.isatty()


def table(*heads: str | Column, title: str | None = None, caption: str | None = None) -> Table:
    """An empty table. If the terminal is too narrow, cells are folded and never truncated."""
    columns = (Column(head, overflow="fold") if isinstance(head, str) else head for head in heads)
    return Table(*columns, title=title, caption=caption)


def one_line(text: str, most: int | None = None) -> str:
    """A text without line breaks and control characters, shortened to `most` characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    if most is None:
        return line
    line = " ".join(line.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def print_json(content: Any, indent: int | None = 2) -> None:
    """Print JSON to standard output."""
    print(json.dumps(content, indent=indent, ensure_ascii=False))
