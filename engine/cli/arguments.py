"""Arguments that several verbs take."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` returns: `add_parser` registers a verb."""

EXIT_MISTAKE = 2


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the device and the number of worker processes."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to compute (default: a GPU if there is one)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of worker processes; 0: run in this one (default: what fits this machine)",
    )


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the dashboard's address and port."""
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, this machine only)",
    )
    parser.add_argument(
        "--port", type=int, help="port to listen on (default: the first free one from 8501)"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")


def add_attribution(parser: argparse.ArgumentParser) -> None:
    """Add the learning algorithm and the attribution method."""
    add_algorithm(parser)
    parser.add_argument(
        "--method", help="attribution method (default: the one with the best measured quality)"
    )


def add_algorithm(parser: argparse.ArgumentParser) -> None:
    """Add the learning algorithm."""
    parser.add_argument(
        "--algorithm", metavar="NAME", help="learning algorithm (default: the study's first)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add output for programs."""
    parser.add_argument("--json", action="store_true", help="print JSON")
