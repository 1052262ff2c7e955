"""compare, case-study: find the differences between two learning algorithms."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from engine.api import Study
from engine.cli.arguments import Verbs, add_json, add_machine
from engine.cli.printing import console, print_json, table
from engine.cli.progress import BuildProgress, job_progress
from engine.data.templates import case_names
from engine.store.errors import DataloupeError, UploadError
from engine.store.quantities import ACCURACY, CORRELATION, EFFECT, OUTPUT, P_VALUE, SHARE
from engine.store.text import counted
from engine.study.names import resolve_algorithm

if TYPE_CHECKING:
    from engine.applications.case_studies.run import Outcome
    from engine.exchange.uploads.report import QuickReport
    from engine.study.uploads import Upload

SHOWN = 5
"""Transformations, and training examples, that the terminal lists."""


def add_verbs(verbs: Verbs) -> None:
    """Register the verbs of this file."""
    compare = verbs.add_parser(
        "compare", help="find how a different model or learning algorithm differs"
    )
    compare.add_argument("study", type=Path, help="folder of the study")
    others = compare.add_mutually_exclusive_group(required=True)
    others.add_argument(
        "--with",
        dest="files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="checkpoints (.safetensors) of a different learning algorithm",
    )
    others.add_argument(
        "--algorithms",
        nargs=2,
        metavar=("A", "B"),
        help="two learning algorithms of study.toml, or ids of uploads",
    )
    compare.add_argument(
        "--arch", help="architecture of the files (default: found from their tensors)"
    )
    compare.add_argument("--name", default="", help="name for the files' learning algorithm")
    compare.add_argument(
        "--algorithm",
        metavar="NAME",
        help="learning algorithm to compare the files with (default: the study's first)",
    )
    compare.add_argument(
        "--method",
        nargs="+",
        default=[None],
        help="attribution method to compare by; two names are one for each side (default: trak)",
    )
    compare.add_argument(
        "--directions",
        type=int,
        default=5,
        metavar="N",
        help="distinguishing directions to find for each side (default: %(default)s)",
    )
    add_json(compare)
    add_machine(compare)
    compare.set_defaults(verb=_compare)

    case = verbs.add_parser(
        "case-study", help="build and compare the two learning algorithms of a case study"
    )
    case.add_argument(
        "name", choices=case_names(), metavar="NAME", help=f"one of {', '.join(case_names())}"
    )
    case.add_argument(
        "study", type=Path, nargs="?", help="folder of the study (default: case-NAME)"
    )
    add_json(case)
    add_machine(case)
    case.set_defaults(verb=_case_study)


# --- compare -------------------------------------------------------------------------------------


def _compare(options: argparse.Namespace) -> int:
    from engine.applications.modeldiff.comparison import read_comparison
    from engine.applications.modeldiff.job import run_job

    if len(options.method) > 2:
        raise DataloupeError(
            f"--method takes one name, or one for each side; {len(options.method)} were given."
        )
    study = Study.open(options.study)
    a, b = options.algorithms or (resolve_algorithm(study, options.algorithm), None)
    report = None
    if b is None:
        upload, report = _upload(study, options, a)
        b = upload.id
    parameters = {
        "a": a,
        "b": b,
        "method_a": options.method[0],
        "method_b": options.method[-1] if options.algorithms else None,
        "directions": options.directions,
        "device": options.device,
        "workers": options.workers,
    }
    with job_progress("Compare", console(stderr=True)) as show:
        found = read_comparison(study, run_job(study, parameters, show)["comparison"])
    if options.json:
        quick = None if report is None else report.to_dict()
        print_json({"report": quick, **found})
    else:
        _print_comparison(console(), found)
        _print_learned(console(), study, found)
    return 0


def _print_learned(shown: Console, study: Study, found: dict[str, Any]) -> None:
    """The training examples that one side learned and the other did not."""
    from engine.applications.modeldiff.learned import learned
    from engine.study.names import read_names_of

    both = learned(study, found["a"]["algorithm"], found["b"]["algorithm"])
    for own, other in ("ab", "ba"):
        rows = both.by(own)
        if len(rows):
            first = ", ".join(
                str(one["id"]) for one in read_names_of(study, "train", rows[:SHOWN].tolist())
            )
            shown.print(
                f"{found[own]['name']} learned {counted(len(rows), 'training example')} that "
                f"{found[other]['name']} did not: {first}{', …' if len(rows) > SHOWN else ''}",
                markup=False,
                highlight=False,
            )


def _upload(study: Study, options: argparse.Namespace, against: str) -> tuple[Upload, QuickReport]:
    """Check and keep the files, and print a quick report."""
    from engine.exchange.uploads.keeping import accept_files, trial_worker
    from engine.exchange.uploads.report import Request, quick_report

    worker = trial_worker(study)
    try:
        upload = accept_files(study, options.files, options.name, options.arch, worker)
        request = Request(study.root, upload.id, against)
        report = worker.call(quick_report, request, study.spec.uploads.seconds)
    finally:
        worker.end()
    if not options.json:
        _print_quick_report(upload, report)
    if report.refusal:
        raise UploadError(f"{upload.name}, kept as {upload.id}: {report.refusal}")
    return upload, report


def _print_quick_report(upload: Upload, report: QuickReport) -> None:
    print(f"The architecture of {upload.name} is {upload.architecture}. It is kept as {upload.id}.")
    print(f"Its input is {upload.preprocessing}")
    for line in report.warnings:
        print(f"Warning: {line}")
    if report.accuracy is None:
        _print_outputs(report)
        return
    accuracy = f"Its test accuracy is {ACCURACY.text(report.accuracy)}"
    if report.their_accuracy is not None and report.agreement is not None:
        accuracy += (
            f", and that of {report.against} is {ACCURACY.text(report.their_accuracy)}; they agree "
            f"on {ACCURACY.text(report.agreement)} of the test examples"
        )
    print(f"{accuracy}.")


def _print_outputs(report: QuickReport) -> None:
    if report.output is None:
        return
    line = f"Its mean model output on the test examples is {OUTPUT.text(report.output)}"
    if report.their_output is not None:
        line += f", and that of {report.against} is {OUTPUT.text(report.their_output)}"
    if report.correlation is not None:
        line += f"; their correlation is {CORRELATION.text(report.correlation)}"
    print(f"{line}.")


def _print_comparison(shown: Console, found: dict[str, Any]) -> None:
    names = found["a"]["name"], found["b"]["name"]
    for key, own, other in (("a", *names), ("b", *names[::-1])):
        shown.print(Text(f"\nWhat {own} does and {other} does not", style="bold"))
        for one in found["directions"][key]:
            shown.print(f"{one['number'] + 1}. {one['reading']}")
    shown.print(Text(f"\n{found['significance']}", style="dim"), soft_wrap=True)
    if found["indicative"]:
        shown.print(
            f"Indicative only: add {counted(found['wanted'], 'more checkpoint')} to the side with "
            "the fewest, to separate real differences from chance in training."
        )


# --- case-study ----------------------------------------------------------------------------------


def _case_study(options: argparse.Namespace) -> int:
    from engine.applications.case_studies.run import CASES, open_case, run
    from engine.build.build import build

    root = options.study or Path(f"case-{options.name}")
    study = open_case(options.name, root)
    progress_console = console(stderr=True)
    with BuildProgress(study, progress_console) as progress:
        build(study, options.device, options.workers, on_progress=progress.update)
    with job_progress("Compare", progress_console) as report:
        outcome = run(study, options.name, options.device, options.workers, report)
    if options.json:
        print_json(asdict(outcome))
        return 0
    print(CASES[options.name].title)
    _print_outcome(console(), outcome)
    print(f"\nTo open the dashboard, run: dataloupe serve {root}")
    return 0


def _print_outcome(shown: Console, outcome: Outcome) -> None:
    from engine.applications.modeldiff.effect_estimates import most_different

    accuracy = (f"{name} {ACCURACY.text(share)}" for name, share in outcome.accuracy.items())
    shown.print(f"Test accuracy: {', '.join(accuracy)}.")
    _print_comparison(shown, outcome.comparison)
    if outcome.planted:
        shown.print(
            f"\nOf the training examples with the largest weights in direction 1 of "
            f"{outcome.comparison['b']['name']}, {SHARE.text(outcome.planted[0])} have the planted "
            "feature.",
            soft_wrap=True,
        )
    a, b = outcome.accuracy
    tried = table(
        "transformation",
        "intensity",
        f"ATE on p, {a}",
        b,
        "p",
        caption="largest differences first; p after Holm's correction",
    )
    for one in outcome.tried[:SHOWN]:
        place = most_different(one)
        effect, p = one["effects"][place], one["adjusted"][place]
        cells = [EFFECT.text(effect[key]["probability"]["mean"]) for key in ("a", "b")]
        tried.add_row(
            one["name"], f"{effect['intensity']:g}", *cells, "–" if p is None else P_VALUE.text(p)
        )
    shown.print()
    shown.print(tried)
