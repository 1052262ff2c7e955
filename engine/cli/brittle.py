"""brittle: predictions that removing a few training examples would flip."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from engine.api import Study
from engine.cli.arguments import Verbs, add_attribution, add_json, add_machine
from engine.cli.printing import console, one_line, table
from engine.store.quantities import FLIP, SHARE
from engine.store.text import counted
from engine.study.calibration_advice import calibration_advice

if TYPE_CHECKING:
    from engine.applications.brittle.supports import Supports

SHOWN = 30
"""Most predictions listed in the terminal."""


def add_verbs(verbs: Verbs) -> None:
    """Register the verb of this file."""
    brittle = verbs.add_parser(
        "brittle",
        help="list predictions that removing a few training examples would flip; verify them by "
        "retraining",
    )
    brittle.add_argument("study", type=Path, help="folder of the study")
    brittle.add_argument(
        "--at-most",
        type=int,
        default=20,
        metavar="K",
        help="largest number of training examples to remove (default: %(default)s)",
    )
    brittle.add_argument(
        "--probability",
        type=float,
        default=0.8,
        metavar="P",
        help="least probability at which a flip is predicted (default: %(default)s)",
    )
    brittle.add_argument(
        "--verify",
        type=int,
        default=0,
        metavar="N",
        help="verify the first N predictions of the list by retraining",
    )
    brittle.add_argument(
        "--seeds",
        type=int,
        default=5,
        help="models to retrain for each prediction (default: %(default)s)",
    )
    brittle.add_argument(
        "--out", type=Path, metavar="FILE", help="write the whole list to a .csv, .json or .parquet"
    )
    add_attribution(brittle)
    add_json(brittle)
    add_machine(brittle)
    brittle.set_defaults(verb=_brittle)


def _brittle(options: argparse.Namespace) -> int:
    from engine.applications.brittle.data_issues import find_data_issues
    from engine.applications.brittle.supports import find, verify_brittle
    from engine.applications.brittle.table import as_bytes, brittle_table, format_of, write
    from engine.applications.verification.verifying import check
    from engine.cli.progress import job_progress
    from engine.study.tags import read_tags

    if options.out is not None:
        format_of(options.out)  # before any work
    study = Study.open(options.study)
    supports = find(study, options.algorithm, options.method, options.at_most, options.probability)
    algorithm = supports.algorithm
    if options.verify > 0:
        check(study, algorithm, supports.method, options.seeds)
        # The list goes to standard output.
        with job_progress("Retrain", console(stderr=True)) as report:
            verify_brittle(
                study,
                supports,
                supports.ranked[: options.verify].tolist(),
                seeds=options.seeds,
                device=options.device,
                workers=options.workers,
                report=report,
            )
    found = brittle_table(
        study,
        supports,
        study.verifications(algorithm),
        find_data_issues(study, algorithm, supports.method),
        read_tags(study, algorithm),
    )
    if options.out is not None:
        write(found, options.out)
    if options.json:
        print(as_bytes(found, "json").decode(), end="")
        return 0
    advice = calibration_advice(study, algorithm, supports.method)
    _print_brittle(console(), supports, found.to_pylist(), advice)
    if options.out is not None:
        print(f"Wrote {counted(found.num_rows, 'prediction')} to {options.out}.")
    return 0


def _print_brittle(
    shown: Console, supports: Supports, rows: list[dict[str, Any]], advice: str
) -> None:
    labeled = any(row["label"] for row in rows)
    has_files = any(row.get("file") is not None for row in rows)
    names = {"id": "id", **({"label": "label"} if labeled else {})}
    names |= {"predicted": "predicted", "other": "would be"}
    heads = ["data support", "likely", "status", "flips", "data issues"]
    listed = table(*names.values(), *heads, *["file"] * has_files)
    for row in rows[:SHOWN]:
        rate = row["flip_rate"]
        listed.add_row(
            *(row[name] for name in names),
            str(row["support"]),
            FLIP.text(row["flip_probability"]),
            row["status"],
            "–" if rate is None else f"{SHARE.text(rate)} of {row['seeds']}",
            ", ".join(row["data_issues"]),
            *[one_line(row.get("file") or "–")] * has_files,
        )
    if rows:
        shown.print(listed)
    if len(rows) > SHOWN:
        shown.print(f"and {len(rows) - SHOWN:,} more; --out writes them all")
    if supports.calibrated:
        refuted = sum(row["status"] == "refuted" for row in rows)
        shown.print(
            f"{len(rows) - refuted:,} of {len(supports.logit_gap):,} predictions are predicted to "
            f"flip by removing at most {counted(supports.at_most, 'training example')}, each with "
            f"a probability of at least {FLIP.text(supports.probability)}"
            + (f", beside {refuted:,} that retraining refuted" if refuted else "")
            + ". Only retraining proves it: --verify N."
        )
    else:
        shown.print(
            f"Scores of {supports.method} are not calibrated, so no flip can be predicted. "
            + advice,
            soft_wrap=True,
        )
