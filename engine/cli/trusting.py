"""trust: let the code that a study names run on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine.api import Study
from engine.cli.arguments import Verbs
from engine.store.errors import DataloupeError, UntrustedCode
from engine.store.trust import revoke, trust_file, trusted_studies
from engine.study.reader import StudyReader
from engine.study.trust import Named, named_code, require_trust, trust_study, untrusted_code


def add_verbs(verbs: Verbs) -> None:
    """Register the verb of this file."""
    trust = verbs.add_parser("trust", help="let the Python code that a study names run here")
    trust.add_argument("study", type=Path, nargs="?", help="folder of the study")
    action = trust.add_mutually_exclusive_group()
    action.add_argument("--yes", action="store_true", help="do not ask")
    action.add_argument("--revoke", action="store_true", help="trust the study no longer")
    action.add_argument("--list", action="store_true", help="list the studies that are trusted")
    trust.set_defaults(verb=_trust)


def ask_to_trust(study: StudyReader) -> None:
    """Ask in the terminal whether to trust the code that a study names.

    Raises:
        UntrustedCode: The answer is no, or nobody can be asked.
    """
    unknown = untrusted_code(study)
    if not unknown or not _somebody_is_there():
        require_trust(study)
    elif _agrees(study, unknown):
        trust_study(study)
    else:
        raise UntrustedCode("Not trusted; nothing was run.")


def _trust(options: argparse.Namespace) -> int:
    if options.list:
        for path, codes in trusted_studies().items():
            print(path)
            for code in codes:
                print(f"  {code}")
        return 0
    if options.study is None:
        raise DataloupeError("Name the study's folder, or --list.")
    if options.revoke:
        was = revoke(options.study)
        print(f"{options.study} is {'no longer' if was else 'not'} trusted.")
        return 0
    study = Study.open(options.study)
    found = named_code(study)
    if not found:
        print(f"{study.root} names no code, so there is nothing to trust.")
        return 0
    if options.yes:
        _show(study, found)
    elif not _somebody_is_there():
        _show(study, found)
        raise UntrustedCode("Nobody can be asked here; with --yes, all of this is trusted.")
    elif not _agrees(study, found):
        raise UntrustedCode("Not trusted.")
    trust_study(study)
    print(f"Trusted (kept in {trust_file()}). Other code, or a copy elsewhere, is asked for again.")
    return 0


def _show(study: StudyReader, found: list[Named]) -> None:
    print(f"{study.root} names this code, which runs with your rights when the study is used:")
    for one in found:
        print(f"  {one}")


def _agrees(study: StudyReader, found: list[Named]) -> bool:
    _show(study, found)
    try:
        answer = input("Do you know who wrote it, and trust it? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _somebody_is_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
