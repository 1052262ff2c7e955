"""The command line: one verb a function, no logic beyond reading arguments and printing answers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

import engine
from engine.api import Study
from engine.applications.unlearning.settings import GRIDS
from engine.attribution.evaluation.counterfactual import Counterfactual
from engine.attribution.evaluation.quality import Measured, Quality
from engine.attribution.evaluation.verdict import Verdict, number, verdict
from engine.cli.completion import add_completion
from engine.cli.progress import BuildProgress
from engine.data.templates import case_names, spec_from_template
from engine.exchange.importing import KINDS
from engine.store import layout
from engine.store.errors import DataloupeError, InterruptedBuild
from engine.store.records import Explanation, Influence
from engine.study.methods import ranked_methods
from engine.study.names import resolve_algorithm
from engine.study.rankings import name_influences
from engine.study.training_datamodels import read_training_datamodel
from engine.study.trust import read_lds_of_each, require_quality

if TYPE_CHECKING:
    from engine.applications.brittle.supports import Supports
    from engine.applications.case_studies.run import Outcome
    from engine.applications.unlearning.audit import Audit
    from engine.applications.unlearning.klom import Klom
    from engine.exchange.uploads.report import QuickReport
    from engine.study.uploads import Upload

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130
SHOWN = 30
"""Brittle predictions that the terminal lists."""
SHOWN_TRIED = 5
"""Transformations that the terminal lists."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. A user's mistake prints one line and returns 2."""
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
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dataloupe", description="See every prediction through the data it was trained on."
    )
    parser.add_argument("--version", action="version", version=f"dataloupe {engine.__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    init = verbs.add_parser("init", help="write a study.toml to start from")
    init.add_argument("study", type=Path, help="folder to make")
    init.add_argument(
        "--template", default="fashion-mnist", help="a shipped spec (default: %(default)s)"
    )
    init.add_argument("--data", help="folder, file or hub name to use in place of the template's")
    init.set_defaults(verb=_init)

    build = verbs.add_parser("build", help="compute what study.toml asks for; goes on where it was")
    build.add_argument("study", type=Path)
    _add_machine(build)
    build.add_argument(
        "--rebuild", metavar="STAGE", help="make this stage again, and later ones as needed"
    )
    build.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="work on a Ray cluster: HOST:PORT of its head, or auto (the study's folder must be "
        "shared by all nodes)",
    )
    build.set_defaults(verb=_build)

    serve = verbs.add_parser("serve", help="open the dashboard of a study")
    serve.add_argument("study", type=Path)
    _add_server(serve)
    serve.set_defaults(verb=_serve)

    demo = verbs.add_parser("demo", help="build the embedded study and open it as soon as it shows")
    demo.add_argument("study", type=Path, nargs="?", default=Path("demo"))
    _add_machine(demo)
    _add_server(demo)
    demo.set_defaults(verb=_demo)

    jobs = verbs.add_parser("jobs", help="list, watch and stop the long work of a study")
    jobs.add_argument("study", type=Path)
    of_one = jobs.add_mutually_exclusive_group()
    of_one.add_argument("--json", action="store_true", help="list as JSON")
    of_one.add_argument("--wait", type=int, metavar="ID", help="show how far it is until it ends")
    of_one.add_argument("--log", type=int, metavar="ID", help="print what it has printed")
    of_one.add_argument("--cancel", type=int, metavar="ID", help="stop it and all its processes")
    of_one.add_argument("--retry", type=int, metavar="ID", help="do the same once more")
    jobs.set_defaults(verb=_jobs)

    explain = verbs.add_parser(
        "explain", help="answer in the terminal: which training data, and how"
    )
    explain.add_argument("study", type=Path)
    which = explain.add_mutually_exclusive_group(required=True)
    which.add_argument("--test", help="row number or id of a test example")
    which.add_argument(
        "--train", help="of a training example: what its own output hangs on (training_targets)"
    )
    explain.add_argument("--k", type=int, default=10, help="examples of each sign (default: 10)")
    explain.add_argument("--algorithm", help="default: the study's first")
    explain.add_argument("--method", help="default: the one that is best known to predict")
    explain.add_argument("--json", action="store_true", help="print JSON")
    explain.set_defaults(verb=_explain)

    what_if = verbs.add_parser("whatif", help="say what removing training data would do")
    what_if.add_argument("study", type=Path)
    what_if.add_argument(
        "--remove",
        required=True,
        metavar="IDS",
        help="ids or row numbers with commas between them, or a file that lists them",
    )
    what_if.add_argument("--k", type=int, default=10, help="predictions to print (default: 10)")
    what_if.add_argument("--algorithm", help="default: the study's first")
    what_if.add_argument("--method", help="default: the one that is best known to predict")
    what_if.add_argument("--json", action="store_true", help="print JSON")
    what_if.set_defaults(verb=_what_if)

    evaluate = verbs.add_parser("evaluate", help="say how far the scores can be trusted")
    evaluate.add_argument("study", type=Path)
    evaluate.add_argument("--algorithm", help="default: the study's first")
    evaluate.add_argument("--by-class", action="store_true", help="also LDS of each class")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(verb=_evaluate)

    brittle = verbs.add_parser(
        "brittle", help="list the predictions that hang on a few training examples; prove it"
    )
    brittle.add_argument("study", type=Path)
    brittle.add_argument(
        "--at-most",
        type=int,
        default=20,
        metavar="K",
        help="removed at most (default: %(default)s)",
    )
    brittle.add_argument(
        "--verify", type=int, default=0, metavar="N", help="retrain for the first N of the list"
    )
    brittle.add_argument(
        "--seeds", type=int, default=5, help="models retrained for each (default: %(default)s)"
    )
    brittle.add_argument(
        "--out", type=Path, help="write the list to this .csv, .json or .parquet file"
    )
    brittle.add_argument("--algorithm", help="default: the study's first")
    brittle.add_argument("--method", help="default: the one that is best known to predict")
    brittle.add_argument("--json", action="store_true", help="print JSON")
    _add_machine(brittle)
    brittle.set_defaults(verb=_brittle)

    unlearn = verbs.add_parser(
        "unlearn", help="make a model forget training data, and audit it by retraining"
    )
    unlearn.add_argument("study", type=Path)
    unlearn.add_argument(
        "--forget",
        required=True,
        metavar="IDS",
        help="ids or row numbers with commas between them, or a file that lists them",
    )
    unlearn.add_argument(
        "--method",
        choices=list(GRIDS),
        default="matching",
        help="how (default: %(default)s)",
    )
    unlearn.add_argument(
        "--by",
        choices=("trak", "datamodel", "hybrid"),
        default="trak",
        help="what matching is told by; the others take a bank with logits (default: %(default)s)",
    )
    unlearn.add_argument(
        "--audit",
        type=int,
        default=0,
        metavar="N",
        help="judge N unlearned models by N retrained ones (50 say something; default: none)",
    )
    unlearn.add_argument(
        "--budget",
        type=float,
        default=0.05,
        help="share of a retraining that it may take (default: %(default)s)",
    )
    unlearn.add_argument(
        "--out",
        type=Path,
        help="write the first checkpoint, unlearned, to this .safetensors file, and a certificate "
        "beside it as .json",
    )
    unlearn.add_argument("--algorithm", help="default: the study's first")
    unlearn.add_argument("--json", action="store_true", help="print JSON")
    _add_machine(unlearn)
    unlearn.set_defaults(verb=_unlearn)

    doctor = verbs.add_parser("doctor", help="verify every file of a study")
    doctor.add_argument("study", type=Path)
    doctor.add_argument(
        "--repair",
        action="store_true",
        help="remove what is broken, to be rebuilt; what people made is set aside",
    )
    doctor.set_defaults(verb=_doctor)

    importing = verbs.add_parser("import", help="bring in scores or runs made elsewhere")
    kinds = importing.add_subparsers(required=True, metavar="KIND")
    for kind, (_, what) in KINDS.items():
        _add_import(kinds.add_parser(kind, help=what), kind, what)

    bank = kinds.add_parser("bank", help="a run bank: masks and outputs of many models")
    bank.add_argument("path", type=Path, help="folder with train_masks.npy and test_margins.npy")
    bank.add_argument("--study", type=Path, required=True, help="where to import it")
    bank.add_argument("--algorithm", help="that made the runs (default: the first)")
    bank.add_argument(
        "--output",
        choices=("max-margin", "margin"),
        default="max-margin",
        help="label's logit less the largest other, or less the logsumexp of the others "
        "(default: %(default)s)",
    )
    bank.add_argument("--runs", type=int, help="only the first so many")
    bank.add_argument("--replace", action="store_true", help="in place of another imported bank")
    bank.set_defaults(verb=_import_bank)

    compare = verbs.add_parser("compare", help="what another model or algorithm does differently")
    compare.add_argument("study", type=Path)
    theirs = compare.add_mutually_exclusive_group(required=True)
    theirs.add_argument(
        "--with",
        dest="files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="checkpoints (.safetensors) of one other algorithm",
    )
    theirs.add_argument(
        "--algorithms", nargs=2, metavar=("A", "B"), help="two of study.toml, or ids of uploads"
    )
    compare.add_argument("--arch", help="architecture of the files (default: recognised)")
    compare.add_argument("--name", default="", help="what to call the files' algorithm")
    compare.add_argument("--algorithm", help="compare the files with this (default: the first)")
    compare.add_argument(
        "--method",
        nargs="+",
        default=[None],
        help="whose scores to compare (default: trak); two names are one for each side",
    )
    compare.add_argument("--directions", type=int, default=5, help="each way (default: 5)")
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    compare.add_argument("--workers", type=int, help="processes side by side (default: as fits)")
    compare.set_defaults(verb=_compare)

    case = verbs.add_parser("case-study", help="build and compare two shipped algorithms")
    case.add_argument("name", choices=case_names(), metavar="NAME", help=", ".join(case_names()))
    case.add_argument("study", type=Path, nargs="?", help="folder to make (default: case-NAME)")
    case.add_argument("--json", action="store_true", help="print JSON")
    _add_machine(case)
    case.set_defaults(verb=_case_study)

    methods = verbs.add_parser("methods", help="list the ways to scores that a study has")
    methods.add_argument("study", type=Path)
    methods.add_argument("--remove", metavar="NAME", help="remove these imported scores")
    methods.add_argument("--algorithm", help="default: all; of --remove: the study's first")
    methods.set_defaults(verb=_methods)

    convert = verbs.add_parser("convert", help="turn your own .pt file into .safetensors")
    convert.add_argument("source", type=Path)
    convert.add_argument("target", type=Path, nargs="?", help="default: beside it, .safetensors")
    convert.set_defaults(verb=_convert)
    return parser


def _add_import(parser: argparse.ArgumentParser, kind: str, what: str) -> None:
    parser.add_argument("path", type=Path, help=what)
    parser.add_argument("--study", type=Path, required=True, help="where to import them")
    parser.add_argument("--name", default=kind, help="of the method (default: %(default)s)")
    parser.add_argument("--algorithm", help="whose predictions they explain (default: the first)")
    parser.add_argument("--array", help="which array, module or experiment, if there are several")
    parser.add_argument(
        "--rows", choices=("test", "train"), help="what a row holds the scores of, if it is unclear"
    )
    parser.add_argument("--negate", action="store_true", help="their positive scores oppose")
    parser.add_argument(
        "--replace", action="store_true", help="in place of other scores imported under this name"
    )
    parser.set_defaults(verb=_import, kind=kind)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--workers", type=int, help="processes side by side (default: as fits)")


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", default="127.0.0.1", help="default: this machine only")
    parser.add_argument("--port", type=int, help="default: the first free one from 8501")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")


def _init(options: argparse.Namespace) -> int:
    study = Study.create(options.study, spec_from_template(options.template, options.data))
    print(f"Wrote {layout.spec_file(study.root)}. Look at it, then: dataloupe build {study.root}")
    return 0


def _build(options: argparse.Namespace) -> int:
    study = Study.open(options.study)
    with BuildProgress(study) as progress:
        study.build(options.device, options.workers, options.rebuild, progress.update, options.ray)
    print(f"Built. Look at it: dataloupe serve {study.root}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from engine.running.launch import serve

    study = Study.open(options.study)
    return serve(study.root, options.address, options.port, open_browser=not options.no_browser)


def _demo(options: argparse.Namespace) -> int:
    from engine.cli.demo import demo

    return demo(
        options.study,
        device=options.device,
        workers=options.workers,
        address=options.address,
        port=options.port,
        open_browser=not options.no_browser,
    )


def _jobs(options: argparse.Namespace) -> int:
    from engine.running.jobs import queue

    study = Study.open(options.study)
    if options.wait is not None:
        _wait_for(study, options.wait)
    elif options.log is not None:
        print(queue.log(study.root, options.log), end="")
    elif options.cancel is not None:
        queue.cancel(study.root, options.cancel)
        print(f"Job {options.cancel} is told to stop.")
    elif options.retry is not None:
        print(f"It is job {queue.retry(study, options.retry)} now.")
    elif options.json:
        print(
            json.dumps([vars(job) for job in queue.jobs(study.root)], indent=2, ensure_ascii=False)
        )
    else:
        table = Table("", "job", "status", "done", "says")
        for job in queue.jobs(study.root):
            done = f"{job.done:,} of {job.total:,}" if job.total else ""
            words = job.error or (job.what if job.active else "")
            table.add_row(str(job.id), escape(job.title), job.status, done, escape(words))
        Console().print(table)
    return 0


def _wait_for(study: Study, number: int) -> None:
    """Show a job until it ends. Raises DataloupeError unless it ends well."""
    from engine.cli.progress import job_progress
    from engine.running.jobs import queue

    job = queue.job(study.root, number)
    with job_progress(job.title) as show:
        while job.active:
            queue.resume(study.root)
            show(job.done, job.total, job.what)
            time.sleep(0.3)
            job = queue.job(study.root, number)
        show(job.done, job.total, job.status)
    if job.status != "done":
        raise DataloupeError(job.error or f"Job {number} was cancelled.")


def _explain(options: argparse.Namespace) -> int:
    study = Study.open(options.study)
    if options.train is not None:
        return _explain_training(study, options)
    explanation = study.explain(options.test, options.k, options.algorithm, options.method)
    if options.json:
        print(json.dumps(explanation.to_dict(), indent=2, ensure_ascii=False))
    else:
        _print_explanation(explanation)
    return 0


def _explain_training(study: Study, options: argparse.Namespace) -> int:
    found = read_training_datamodel(study, options.train, options.algorithm)
    helping, hurting = name_influences(
        study, *(found.strongest(options.k, sign) for sign in (1, -1))
    )
    example = study.table("train").iloc[found.row]
    if options.json:
        content = {
            "row": found.row,
            "id": str(example["id"]),
            "label": str(example["label"]),
            "itself": found.itself,
            "bias": found.bias,
            "correlation": found.correlation,
            "helping": [asdict(one) for one in helping],
            "hurting": [asdict(one) for one in hurting],
        }
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return 0
    console = Console()
    console.print(
        f"[bold]{escape(str(example['id']))}[/] is [bold]{escape(str(example['label']))}[/]; being "
        f"trained on changes its own margin by {found.itself:+z.2f}"
    )
    for title, side in (
        ("Others that raise its margin", helping),
        ("Others that lower its margin", hurting),
    ):
        console.print(f"\n{title}")
        console.print(_influence_table(side))
    return 0


def _print_explanation(explanation: Explanation) -> None:
    console = Console()
    is_what = f"[bold]{escape(explanation.id)}[/] is [bold]{escape(explanation.label)}[/]"
    if explanation.predicted is None:
        console.print(f"{is_what}; no model of this study has predicted it yet")
    else:
        verdict = "correct" if explanation.correct else "wrong"
        console.print(
            f"{is_what}, predicted [bold]{escape(explanation.predicted)}[/] ({verdict}, confidence "
            f"{explanation.confidence:.2f}, margin {explanation.margin:+z.2f})"
        )
    for title, side in (
        ("Supporting: pulled it towards its label", explanation.supporting),
        ("Opposing: pulled it away from its label", explanation.opposing),
    ):
        console.print(f"\n{title}")
        console.print(_influence_table(side))
    console.print(f"\n[dim]{escape(str(explanation.badge))}[/]", soft_wrap=True)


def _influence_table(side: Sequence[Influence]) -> Table:
    table = Table("", "id", "label", "score")
    for rank, influence in enumerate(side, start=1):
        table.add_row(
            str(rank), escape(influence.id), escape(influence.label), f"{influence.score:+.4g}"
        )
    return table


def _what_if(options: argparse.Namespace) -> int:
    from engine.study.removal_sets import read_examples

    study = Study.open(options.study)
    rows = read_examples(study, options.remove)
    found = study.counterfactual(rows, options.algorithm, options.method)
    if options.json:
        print(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        _print_counterfactual(study, found, options.k)
    return 0


def _print_counterfactual(study: Study, found: Counterfactual, k: int) -> None:
    console = Console()
    unit = "margin" if found.calibrated else "sum of scores"
    by_class = Table("class", f"mean change of the {unit}")
    for label, mean in sorted(found.by_class.items(), key=lambda item: item[1].mean):
        words = _bracketed(mean) if found.calibrated else f"{mean.mean:+.4g}"
        by_class.add_row(escape(label), words)
    console.print(f"Without {len(found.removed):,} training examples:")
    console.print(by_class)
    table = study.table("test")[["id", "label"]]
    most = Table("id", "label", "before", "change", "after")
    for row in [*found.strongest(-1, k), *found.strongest(1, k)[::-1]]:
        ends = [None if at is None else at[row] for at in (found.before, found.after)]
        before, after = ("–" if end is None else f"{end:+z.2f}" for end in ends)
        id_, label = table.iloc[row]
        most.add_row(escape(str(id_)), escape(str(label)), before, _change(found, row), after)
    console.print(most)
    if found.calibrated:
        console.print(
            f"Margins that would fall below 0: {len(found.lost):,}; rise above it: "
            f"{len(found.won):,}."
        )
    else:
        console.print(
            "Scores are uncalibrated: their order says who is hit, their size nothing. "
            f"Subset runs give them a unit: [subset_runs] in "
            f"{escape(str(layout.spec_file(study.root)))}.",
            highlight=False,
            soft_wrap=True,
        )
    if found.emptied:
        console.print(f"Nothing would be left of {escape(', '.join(found.emptied))}: do not trust.")
    console.print(f"\n[dim]{escape(str(study.badge(found.algorithm, found.method)))}[/]")


def _change(found: Counterfactual, row: int) -> str:
    if found.low is None or found.high is None:
        return f"{found.change[row]:+.4g}"
    return escape(f"{found.change[row]:+z.2f} [{found.low[row]:+z.2f}, {found.high[row]:+z.2f}]")


def _evaluate(options: argparse.Namespace) -> int:
    study = Study.open(options.study)
    quality = require_quality(study, options.algorithm)
    if options.json:
        print(json.dumps(quality.to_dict(), indent=2, ensure_ascii=False))
        return 0
    console = Console()
    console.print(_quality_table(quality))
    if options.by_class:
        console.print(_class_table(quality))
    method = quality.preferred
    of_each = read_lds_of_each(study, options.algorithm, method)
    _print_verdict(console, quality.methods[method].title, verdict(quality, method, of_each))
    return 0


def _quality_table(quality: Quality) -> Table:
    table = Table("method", Column("LDS [95 %]", no_wrap=True), "validation", "slope", "R²", "90 %")
    for name, one in quality.methods.items():
        mark = " *" if name == quality.preferred else " (baseline)" if one.baseline else ""
        calibration = one.calibration
        table.add_row(
            escape(one.title) + mark,
            _bracketed(one.lds),
            "–" if one.validation_lds is None else f"{one.validation_lds:.3f}",
            "–" if calibration is None else f"{calibration.slope.mean:.3g}",
            "–" if calibration is None else f"{calibration.r_squared:.2f}",
            "–" if one.coverage is None else f"{one.coverage:.0%}",
        )
    seeds = f" of {quality.seeds} seeds each" if quality.seeds > 1 else ""
    table.caption = (
        f"{quality.masks['test']:,} held-out masks{seeds}, α {quality.alpha:g}; "
        "* preferred by validation; 90 %: outcomes inside its 90 % intervals"
    )
    return table


def _class_table(quality: Quality) -> Table:
    shown = [one for one in quality.methods.values() if not one.baseline]
    columns = (Column(escape(one.title), no_wrap=True) for one in shown)
    table = Table("class", *columns, title="LDS [95 %] of each class")
    for label in dict.fromkeys(label for one in shown for label in one.by_class):
        found = [one.by_class.get(label) for one in shown]
        table.add_row(escape(label), *("–" if lds is None else _bracketed(lds) for lds in found))
    return table


def _bracketed(lds: Measured) -> str:
    return escape(f"{lds.mean:.3f} [{lds.low:.3f}, {lds.high:.3f}]")


def _print_verdict(console: Console, title: str, found: Verdict) -> None:
    console.print(f"\n[bold]{escape(title)}: {found.grade}.[/] {escape(found.summary)}\n")
    lines = Table.grid(padding=(0, 2))
    for use in found.uses:
        answer = {"yes": "yes", "care": "with care", "no": "no"}[use.answer]
        lines.add_row(answer, f"[bold]{escape(use.what)}.[/] {escape(use.why)}")
    for caution in found.cautions:
        lines.add_row("note", escape(caution))
    console.print(lines)


def _brittle(options: argparse.Namespace) -> int:
    from engine.applications.brittle.data_issues import flags
    from engine.applications.brittle.supports import find, verify_brittle
    from engine.applications.brittle.table import as_bytes, brittle_table, format_of, write
    from engine.applications.verification import check
    from engine.cli.progress import job_progress
    from engine.study.triage import triage

    if options.out is not None:
        format_of(options.out)  # before any work
    study = Study.open(options.study)
    supports = find(study, options.algorithm, options.method, options.at_most)
    algorithm = supports.algorithm
    if options.verify > 0:
        check(study, algorithm, supports.method, options.seeds)
        # What is asked for goes to standard output.
        with job_progress("Retrain", Console(stderr=True)) as report:
            verify_brittle(
                study,
                supports,
                supports.ranked[: options.verify].tolist(),
                seeds=options.seeds,
                device=options.device,
                workers=options.workers,
                report=report,
            )
    table = brittle_table(
        study,
        supports,
        study.verifications(algorithm),
        flags(study, algorithm, supports.method),
        triage(study, algorithm),
    )
    if options.out is not None:
        write(table, options.out)
    if options.json:
        print(as_bytes(table, "json").decode(), end="")
        return 0
    _print_brittle(Console(), supports, table.to_pylist())
    if options.out is not None:
        print(f"Wrote {table.num_rows:,} predictions to {options.out}.")
    return 0


def _print_brittle(console: Console, supports: Supports, rows: list[dict[str, Any]]) -> None:
    table = Table("id", "label", "predicted", "would be", "support", "status", "flips", "flags")
    for row in rows[:SHOWN]:
        rate = row["flip_rate"]
        table.add_row(
            *(escape(row[name]) for name in ("id", "label", "predicted", "other")),
            str(row["support"]),
            row["status"],
            "–" if rate is None else f"{rate:.0%} of {row['seeds']}",
            ", ".join(row["flags"]),
        )
    if rows:
        console.print(table)
    if len(rows) > SHOWN:
        console.print(f"and {len(rows) - SHOWN:,} more; --out writes them all")
    if supports.calibrated:
        console.print(
            f"{len(rows):,} of {len(supports.lead):,} predictions are said to flip without at most "
            f"{supports.at_most} training examples. Only retraining proves it: --verify N."
        )
    else:
        console.print(
            f"Scores by {escape(supports.method)} are not calibrated, so nothing can be said of "
            "flips: add [subset_runs] with masks = 200 to study.toml and build."
        )


def _unlearn(options: argparse.Namespace) -> int:
    from engine.applications.unlearning.audit import audit
    from engine.applications.unlearning.certificate import write_unlearned
    from engine.applications.unlearning.requests import forget_set
    from engine.cli.progress import job_progress
    from engine.study.removal_sets import read_examples

    study = Study.open(options.study)
    forget = forget_set(study, read_examples(study, options.forget).tolist())
    if not options.audit and options.out is None:
        raise DataloupeError(
            "Nothing to do: --audit N judges N unlearned models, --out FILE writes one."
        )
    shared = {"budget": options.budget, "algorithm": options.algorithm, "device": options.device}
    shared["source"] = options.by
    found = certificate = None
    if options.audit:
        with job_progress("Unlearn", Console(stderr=True)) as report:
            found = audit(
                study,
                forget,
                methods=[options.method],
                models=options.audit,
                workers=options.workers,
                report=report,
                **shared,
            )
    if options.out is not None:
        certificate = write_unlearned(
            study, forget, options.out, method=options.method, audited=found, **shared
        )
    if options.json:
        answer = certificate if found is None else found.to_dict()
        print(json.dumps(answer, indent=2, ensure_ascii=False))
        return 0
    if found is not None:
        _print_audit(Console(), found)
    if certificate is not None:
        print(f"Wrote {options.out} and its certificate {options.out.with_suffix('.json')}.")
    return 0


def _print_audit(console: Console, found: Audit) -> None:
    table = Table("method", "forget", "retain", "test", "accuracy on test", "cost")
    for one in found.methods:
        cells = [_klom(part.klom) for part in (one.forget, one.retain, one.test)]
        table.add_row(one.method, *cells, f"{one.test.accuracy:.1%}", f"{one.cost_share:.1%}")
    floor = [_klom(found.floor[part]) for part in ("forget", "retain", "test")]
    right = found.methods[0].test.oracle_accuracy
    table.add_row(f"floor ({found.models // 2} oracles)", *floor, f"{right:.1%}", "100.0%")
    table.caption = (
        f"KLoM, mean [95 %] / 95th percentile, of {found.models} unlearned models from "
        f"{found.models} retrained without {len(found.forget):,} examples; at most "
        f"{found.ceiling:.1f}"
    )
    console.print(table)


def _klom(found: Klom) -> str:
    return f"{_bracketed(found.mean)} / {found.p95.mean:.2f}"


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
    console = Console(stderr=True)
    with console.status("Comparing") as status:

        def show(done: int, total: int, what: str) -> None:
            status.update(f"{escape(what)} {done}/{total}")

        found = read_comparison(study, run_job(study, parameters, show)["comparison"])
    if options.json:
        quick = None if report is None else report.to_dict()
        print(json.dumps({"report": quick, **found}, indent=2, ensure_ascii=False))
    else:
        _print_comparison(found)
    return 0


def _upload(study: Study, options: argparse.Namespace, against: str) -> tuple[Upload, QuickReport]:
    """Check and keep the files, and say how good they are."""
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
    return upload, report


def _print_quick_report(upload: Upload, report: QuickReport) -> None:
    print(f"{upload.name} is {upload.architecture}, kept as {upload.id}.")
    print(f"It is fed with {upload.preprocessing}")
    said = f"It is right on {report.accuracy:.1%} of the test examples"
    if report.their_accuracy is not None:
        said += (
            f", {report.against} on {report.their_accuracy:.1%}; they agree on "
            f"{report.agreement:.1%}"
        )
    print(f"{said}.")


def _case_study(options: argparse.Namespace) -> int:
    from engine.applications.case_studies.run import CASES, open_case, run
    from engine.build.build import build
    from engine.cli.progress import job_progress

    root = options.study or Path(f"case-{options.name}")
    study = open_case(options.name, root)
    told = Console(stderr=True)
    with BuildProgress(study, told) as progress:
        build(study, options.device, options.workers, on_progress=progress.update)
    with job_progress("Compare", told) as report:
        outcome = run(study, options.name, options.device, options.workers, report)
    if options.json:
        print(json.dumps(asdict(outcome), indent=2, ensure_ascii=False))
        return 0
    print(CASES[options.name].question)
    _print_outcome(outcome)
    print(f"\nLook at it: dataloupe serve {root}")
    return 0


def _print_outcome(outcome: Outcome) -> None:
    console = Console()
    right = (f"{name} on {share:.1%}" for name, share in outcome.accuracy.items())
    console.print(f"Right on the test examples: {escape(', '.join(right))}.")
    _print_comparison(outcome.comparison)
    if outcome.planted:
        console.print(
            f"\nOf the training examples that weigh most in direction 1 of "
            f"{escape(outcome.comparison['b']['name'])}, {outcome.planted[0]:.0%} carry what was "
            "planted.",
            soft_wrap=True,
        )
    a, b = outcome.accuracy
    tried = Table("transformation", "intensity", f"ATE on p, {a}", b, "p")
    for one in outcome.tried[:SHOWN_TRIED]:
        place = one["adjusted"].index(min(one["adjusted"]))
        effect, p = one["effects"][place], one["adjusted"][place]
        cells = [number(effect[key]["probability"]["mean"], 3) for key in ("a", "b")]
        tried.add_row(escape(one["name"]), f"{effect['intensity']:g}", *cells, f"{p:.2g}")
    tried.caption = "those first that act most differently; p after Holm's correction"
    console.print()
    console.print(tried)


def _print_comparison(found: dict[str, Any]) -> None:
    console = Console()
    names = found["a"]["name"], found["b"]["name"]
    for key, own, other in (("a", *names), ("b", *names[::-1])):
        console.print(f"\n[bold]What {escape(own)} does and {escape(other)} does not[/]")
        for one in found["directions"][key]:
            console.print(f"{one['number'] + 1}. {escape(one['reading'])}")
    console.print(f"\n[dim]{escape(found['significance'])}[/]", soft_wrap=True)
    if found["indicative"]:
        console.print(
            f"Indicative only: {found['wanted']} more checkpoints of the side that has fewest "
            "would tell chance in training from what is real."
        )


def _import(options: argparse.Namespace) -> int:
    study = Study.open(options.study)
    names = ("name", "algorithm", "array", "rows", "negate", "replace")
    chosen = {name: getattr(options, name) for name in names}
    with BuildProgress(study) as progress:
        found = study.import_scores(
            options.kind, options.path, on_progress=progress.update, **chosen
        )
    for note in found.notes:
        print(note)
    done = "had been imported before" if found.was_there else "is imported"
    print(
        f"Method {found.method} of {found.algorithm} {done}. Look at it: "
        f"dataloupe serve {study.root}"
    )
    return 0


def _import_bank(options: argparse.Namespace) -> int:
    study = Study.open(options.study)
    algorithm = resolve_algorithm(study, options.algorithm)
    with BuildProgress(study) as progress:
        found = study.import_bank(
            options.path,
            algorithm=algorithm,
            output=options.output,
            runs=options.runs,
            replace=options.replace,
            on_progress=progress.update,
        )
    for note in found.notes:
        print(note)
    print(
        f"{algorithm} has an imported run bank of {found.runs:,} runs on {found.masks:,} masks "
        f"(α {found.alpha:g})."
    )
    return 0


def _methods(options: argparse.Namespace) -> int:
    study = Study.open(options.study)
    if options.remove:
        from engine.exchange.importing.methods import remove_import

        remove_import(study, options.remove, options.algorithm)
        print(f"Removed {options.remove}.")
        return 0
    table = Table("algorithm", "method", "what it is", "how it was made")
    names = (
        [resolve_algorithm(study, options.algorithm)]
        if options.algorithm
        else study.spec.algorithms
    )
    for algorithm in names:
        for method in ranked_methods(study, algorithm):
            badge = study.badge(algorithm, method)
            table.add_row(algorithm, method, escape(str(badge)), escape(badge.reason))
    Console().print(table)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from engine.study.doctor import examine

    report = examine(Study.open(options.study), repair=options.repair)
    for finding in report.broken:
        print(finding)
    print(report.summary)
    return EXIT_MISTAKE if report.broken and not options.repair else 0


def _convert(options: argparse.Namespace) -> int:
    from engine.exchange.convert import convert

    target = options.target or options.source.with_suffix(".safetensors")
    print(convert(options.source, target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
