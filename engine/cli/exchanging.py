"""import, methods, convert, doctor: data from other tools, and checks of a study's files."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.api import Study
from engine.cli.arguments import EXIT_MISTAKE, Verbs
from engine.cli.printing import console, table
from engine.cli.progress import BuildProgress
from engine.exchange.importing import KINDS
from engine.store.text import counted
from engine.study.methods import ranked_methods
from engine.study.names import resolve_algorithm
from engine.study.reader import open_to_repair


def add_verbs(verbs: Verbs) -> None:
    """Register the verbs of this file."""
    importing = verbs.add_parser("import", help="import scores or runs made with other tools")
    kinds = importing.add_subparsers(required=True, metavar="KIND")
    for kind, (_, path) in KINDS.items():
        _add_import_scores(kinds, kind, path)
    _add_import_bank(kinds)

    methods = verbs.add_parser("methods", help="list the attribution methods a study has")
    methods.add_argument("study", type=Path, help="folder of the study")
    methods.add_argument("--remove", metavar="NAME", help="remove these imported scores")
    methods.add_argument(
        "--algorithm",
        metavar="NAME",
        help="learning algorithm (default: all of them; with --remove, the study's first)",
    )
    methods.set_defaults(verb=_methods)

    convert = verbs.add_parser("convert", help="convert your own checkpoint to .safetensors")
    convert.add_argument(
        "source", type=Path, help="a .pt, .pth, .ckpt, .bin or .safetensors file, or an .index.json"
    )
    convert.add_argument(
        "target", type=Path, nargs="?", help="file to write (default: SOURCE with .safetensors)"
    )
    convert.add_argument(
        "--key",
        help="which weights to take, if the file holds several: a key such as state_dict_ema, or a "
        "prefix of names such as student",
    )
    convert.set_defaults(verb=_convert)

    doctor = verbs.add_parser("doctor", help="check every file of a study")
    doctor.add_argument("study", type=Path, help="folder of the study")
    doctor.add_argument(
        "--repair",
        action="store_true",
        help="delete broken files so that a build makes them again; files made by people are moved "
        "aside instead",
    )
    doctor.set_defaults(verb=_doctor)


# --- import --------------------------------------------------------------------------------------


def _add_import_scores(kinds: Verbs, kind: str, path: str) -> None:
    parser = kinds.add_parser(kind, help=path)
    parser.add_argument("path", type=Path, help=path)
    parser.add_argument("--study", type=Path, required=True, help="study to import into")
    parser.add_argument(
        "--name", default=kind, help="name for the attribution method (default: %(default)s)"
    )
    parser.add_argument(
        "--algorithm",
        metavar="NAME",
        help="learning algorithm whose predictions they explain (default: the study's first)",
    )
    parser.add_argument(
        "--array", help="array, module or experiment to read, if the file holds several"
    )
    parser.add_argument(
        "--rows",
        choices=("test", "train"),
        help="whether a row is a test or a training example, if the shape is ambiguous",
    )
    parser.add_argument(
        "--negate",
        action="store_true",
        help="change the sign, for tools whose positive scores mean opposing",
    )
    parser.add_argument(
        "--replace", action="store_true", help="replace scores imported under the same name"
    )
    parser.set_defaults(verb=_import, kind=kind)


def _add_import_bank(kinds: Verbs) -> None:
    bank = kinds.add_parser("bank", help="a run bank: masks and outputs of many subset runs")
    bank.add_argument("path", type=Path, help="folder with train_masks.npy and test_margins.npy")
    bank.add_argument("--study", type=Path, required=True, help="study to import into")
    bank.add_argument(
        "--algorithm",
        metavar="NAME",
        help="learning algorithm that made the runs (default: the study's first)",
    )
    bank.add_argument(
        "--output",
        choices=("max-margin", "margin"),
        default="max-margin",
        help="model output in the files: the true label's logit minus the largest other "
        "(max-margin), or minus the logsumexp of the others (margin) (default: %(default)s)",
    )
    bank.add_argument("--runs", type=int, metavar="N", help="import only the first N runs")
    bank.add_argument("--replace", action="store_true", help="replace an imported run bank")
    bank.set_defaults(verb=_import_bank)


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
    state = "was already imported" if found.was_there else "is imported"
    print(
        f"Method {found.method} of {found.algorithm} {state}. To open the dashboard, run: "
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
        f"{algorithm} has an imported run bank of {counted(found.runs, 'run')} on "
        f"{counted(found.masks, 'mask')} (α {found.alpha:g})."
    )
    return 0


# --- methods, convert, doctor --------------------------------------------------------------------


def _methods(options: argparse.Namespace) -> int:
    study = Study.open(options.study)
    if options.remove:
        from engine.exchange.importing.methods import remove_import

        remove_import(study, options.remove, options.algorithm)
        print(f"Removed {options.remove}.")
        return 0
    listed = table("algorithm", "method", "quality", "how it was made")
    names = (
        [resolve_algorithm(study, options.algorithm)]
        if options.algorithm
        else study.spec.algorithms
    )
    for algorithm in names:
        for method in ranked_methods(study, algorithm):
            badge = study.badge(algorithm, method)
            listed.add_row(algorithm, method, str(badge), badge.reason)
    console().print(listed)
    return 0


def _convert(options: argparse.Namespace) -> int:
    from engine.exchange.convert import convert, default_target

    target = options.target or default_target(options.source)
    found = convert(options.source, target, options.key)
    where = f" found under {'.'.join(found.found_in)}" if found.found_in else ""
    print(
        f"Wrote {found.target}: {counted(found.tensors, 'tensor')} with "
        f"{counted(found.parameters, 'value')}{where}."
    )
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from engine.study.doctor import examine

    report = examine(open_to_repair(options.study), repair=options.repair)
    for finding in (*report.broken, *report.notes):
        print(finding)
    print(report.summary)
    return EXIT_MISTAKE if (report.broken or report.notes) and not options.repair else 0
