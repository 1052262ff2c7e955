"""Shell completion: `dataloupe --print-completion SHELL` prints a script for the shell to load.

The script is static, so a press of Tab starts no Python.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import shtab


def add_completion(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the option, and let every argument that takes a path complete file names."""
    _complete_paths(parser)
    shtab.add_argument_to(parser, help="print a script that completes commands, and exit")
    return parser


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:  # argparse has no public list of them
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                _complete_paths(verb)
        elif action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
