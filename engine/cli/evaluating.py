"""evaluate: how far the scores can be trusted."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from engine.api import Study
from engine.attribution.evaluation.quality import Quality
from engine.attribution.evaluation.verdict import Verdict, ceiling_text, verdict
from engine.cli.arguments import Verbs, add_algorithm, add_json
from engine.cli.printing import console, print_json, table
from engine.store.quantities import LDS, SHARE, SLOPE
from engine.store.text import counted
from engine.study.measured_quality import read_lds_of_each, require_quality
from engine.study.methods import method_title, scored_methods
from engine.study.names import resolve_algorithm


def add_verbs(verbs: Verbs) -> None:
    """Register the verb of this file."""
    evaluate = verbs.add_parser("evaluate", help="report how far the scores can be trusted")
    evaluate.add_argument("study", type=Path, help="folder of the study")
    add_algorithm(evaluate)
    evaluate.add_argument(
        "--by-group",
        "--by-class",
        action="store_true",
        help="also show the LDS of each group, such as a class",
    )
    add_json(evaluate)
    evaluate.set_defaults(verb=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    study = Study.open(options.study)
    quality = require_quality(study, options.algorithm)
    if options.json:
        print_json(quality.to_dict())
        return 0
    shown = console()
    shown.print(_quality_table(quality))
    shown.print(f"Noise ceiling {ceiling_text(quality, quality.preferred)}", markup=False)
    if options.by_group:
        shown.print(_group_table(quality))
    algorithm = resolve_algorithm(study, options.algorithm)
    waiting = [
        method_title(study, algorithm, name)
        for name in scored_methods(study, algorithm)
        if name not in quality.methods
    ]
    if waiting:
        shown.print(
            f"Not measured yet: {', '.join(waiting)}. `dataloupe build {options.study}` does it.",
            markup=False,
        )
    method = quality.preferred
    of_each = read_lds_of_each(study, options.algorithm, method)
    _print_verdict(shown, quality.methods[method].title, verdict(quality, method, of_each))
    return 0


def _quality_table(quality: Quality) -> Table:
    seeds = f" of {quality.seeds} seeds each" if quality.seeds > 1 else ""
    listed = table(
        "method",
        Column("LDS (95 %)", no_wrap=True),
        "validation",
        "slope",
        "R²",
        "90 %",
        caption=f"{counted(quality.masks['test'], 'held-out mask')}{seeds}, α {quality.alpha:.4g}; "
        "* preferred: the simplest within a standard error of the best on validation masks; "
        "90 %: share of outcomes inside the 90 % intervals",
    )
    for name, one in quality.methods.items():
        mark = " *" if name == quality.preferred else " (baseline)" if one.baseline else ""
        calibration = one.calibration
        listed.add_row(
            one.title + mark,
            LDS.interval(one.lds),
            "–" if one.validation_lds is None else LDS.text(one.validation_lds),
            "–" if calibration is None else SLOPE.text(calibration.slope.mean),
            "–" if calibration is None else SHARE.text(calibration.r_squared),
            "–" if one.coverage is None else SHARE.text(one.coverage),
        )
    return listed


def _group_table(quality: Quality) -> Table:
    shown = [one for one in quality.methods.values() if not one.baseline]
    columns = (Column(one.title, no_wrap=True) for one in shown)
    listed = table("group", *columns, title="LDS (95 %) of each group")
    for name in dict.fromkeys(name for one in shown for name in one.by_group):
        found = [one.by_group.get(name) for one in shown]
        listed.add_row(name, *("–" if lds is None else LDS.interval(lds) for lds in found))
    return listed


def _print_verdict(shown: Console, title: str, found: Verdict) -> None:
    shown.print(Text.assemble((f"\n{title}: {found.grade}.", "bold"), f" {found.summary}\n"))
    lines = Table.grid(padding=(0, 2))
    for use in found.uses:
        answer = {"yes": "yes", "care": "with care", "no": "no"}[use.answer]
        lines.add_row(answer, Text.assemble((f"{use.what}.", "bold"), f" {use.why}"))
    for caution in found.cautions:
        lines.add_row("note", caution)
    shown.print(lines)
