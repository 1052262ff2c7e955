"""labels: training labels that look wrong, with what was decided about them."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.api import Study
from engine.cli.arguments import Verbs, add_attribution, add_json
from engine.cli.printing import console, one_line, table
from engine.store.quantities import DISAGREEMENT, LABEL_LOG_ODDS, SUSPICION

SHOWN = 30
"""Most labels listed in the terminal."""


def add_verbs(verbs: Verbs) -> None:
    """Register the verb of this file."""
    labels = verbs.add_parser(
        "labels", help="list training labels that look wrong, and what was decided about them"
    )
    labels.add_argument("study", type=Path, help="folder of the study")
    labels.add_argument(
        "--decided",
        action="store_true",
        help="list the examples with a decision, in place of the most suspect ones",
    )
    labels.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write all training examples (with --decided: those with a decision) to a .csv, .json "
        "or .parquet",
    )
    add_attribution(labels)
    add_json(labels)
    labels.set_defaults(verb=_labels)


def _labels(options: argparse.Namespace) -> int:
    from engine.applications.brittle.table import as_bytes, format_of, write
    from engine.applications.curation.net_influence import net_influence
    from engine.applications.curation.table import curation_table
    from engine.study.decisions import read_decisions

    if options.out is not None:
        format_of(options.out)  # before any work
    study = Study.open(options.study)
    found = study.label_suspicion(options.algorithm)
    decisions = read_decisions(study)
    rows = found.order
    if options.decided:
        rows = rows[[int(row) in decisions for row in rows]]
    net, method = net_influence(study, found.algorithm, options.method)
    every = curation_table(study, rows, found, decisions, net, method)
    if options.out is not None:
        write(every, options.out)
    listed = every if options.decided else every.slice(0, max(SHOWN, found.excess.flagged))
    if options.json:
        print(as_bytes(listed, "json").decode(), end="")
        return 0
    shown = console()
    shown.print(f"{found.words} {found.evidence.words}", soft_wrap=True)
    heads = "id", "label", "looks like", "log-odds", "suspicion", "neighbors disagree", "decision"
    printed = table(*heads)
    for one in listed.slice(0, SHOWN).to_pylist():
        disagree, decision = one["neighbors_disagree"], one["decision"]
        printed.add_row(
            *(one_line(one[name]) for name in ("id", "label", "suggested_label")),
            "–" if one["label_log_odds"] is None else LABEL_LOG_ODDS.text(one["label_log_odds"]),
            SUSPICION.text(one["label_suspicion"]),
            "–" if disagree is None else DISAGREEMENT.text(disagree),
            "" if decision is None else one_line(" ".join([decision, one["new_label"] or ""])),
        )
    if listed.num_rows:
        shown.print(printed)
    if options.out is not None:
        print(f"Wrote {every.num_rows:,} training examples to {options.out}.")
    return 0
