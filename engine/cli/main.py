"""The command `dataloupe`: assembles the parser, runs a verb, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import engine
from engine.cli import (
    brittle,
    building,
    comparing,
    evaluating,
    exchanging,
    explaining,
    generating,
    jobs,
    labels,
    texts,
    trusting,
    unlearning,
)
from engine.cli.arguments import EXIT_MISTAKE
from engine.cli.completion import add_completion
from engine.store.errors import DataloupeError, InterruptedBuild
from engine.store.io_errors import io_text, reason

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as in shells."""
EXIT_CLOSED_OUTPUT = 141
"""128 + SIGPIPE: what `cat` gives in `cat file | head`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    A user's mistake prints one line and returns 2. A closed output pipe, as in
    `dataloupe explain … | head`, ends the command silently.
    """
    _search_this_package()
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        closed = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
        if not closed:
            raise
        for stream in closed:
            _discard(stream)
        return EXIT_CLOSED_OUTPUT
    except OSError as error:
        _discard(sys.stdout)
        print(f"dataloupe: the output cannot be written: {reason(error)}.", file=sys.stderr)
        return EXIT_MISTAKE


def _run(arguments: Sequence[str] | None) -> int:
    options = add_completion(_parser()).parse_args(arguments)
    try:
        code: int = options.verb(options)
    except InterruptedBuild as error:
        print(f"dataloupe: {error}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print("dataloupe: stopped.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except DataloupeError as error:
        print(f"dataloupe: {error}", file=sys.stderr)
        return EXIT_MISTAKE
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"dataloupe: {io_text(error)}", file=sys.stderr)
        return EXIT_MISTAKE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dataloupe", description="See every prediction through the data it was trained on."
    )
    parser.add_argument("--version", action="version", version=f"dataloupe {engine.__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    building.add_verbs(verbs)
    explaining.add_verbs(verbs)
    texts.add_verbs(verbs)
    evaluating.add_verbs(verbs)
    brittle.add_verbs(verbs)
    labels.add_verbs(verbs)
    comparing.add_verbs(verbs)
    unlearning.add_verbs(verbs)
    generating.add_verbs(verbs)
    exchanging.add_verbs(verbs)
    jobs.add_verbs(verbs)
    trusting.add_verbs(verbs)
    return parser


def _search_this_package() -> None:
    """Let worker processes and jobs, which inherit `sys.path`, find this package.

    An editable installation does not put its folder on the path. The current folder is not
    searched: somebody may have sent it (`engine.store.trust.search_current_folder`).
    """
    folder = str(Path(engine.__file__).parents[1])
    if folder not in sys.path:
        sys.path.append(folder)


def _has_no_reader(stream: TextIO) -> bool:
    """Whether the other end of a pipe was closed."""
    with contextlib.suppress(OSError):  # a stream without a descriptor is not a pipe
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return False


def _discard(stream: TextIO) -> None:
    """Discard the rest of a stream: Python flushes it on exit, which would fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
