"""unlearn: make a model forget training examples, and audit it against retrained models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from engine.api import Study
from engine.applications.unlearning.settings import GRIDS
from engine.applications.unlearning.sources import SOURCES
from engine.cli.arguments import Verbs, add_algorithm, add_json, add_machine
from engine.cli.printing import console, print_json, table
from engine.store.errors import DataloupeError
from engine.store.quantities import ACCURACY, FEATURE_DISTANCE, KLOM, SHARE
from engine.store.text import counted

if TYPE_CHECKING:
    from engine.applications.unlearning.audit_record import Audit
    from engine.applications.unlearning.klom import Klom
    from engine.applications.unlearning.made import MadeByAudit


def add_verbs(verbs: Verbs) -> None:
    """Register the verb of this file."""
    unlearn = verbs.add_parser(
        "unlearn", help="make a model forget training examples; audit it against retrained models"
    )
    unlearn.add_argument("study", type=Path, help="folder of the study")
    unlearn.add_argument(
        "--forget",
        required=True,
        metavar="IDS",
        help="the forget set: ids, or rows as #17, separated by commas, or a file that lists them",
    )
    unlearn.add_argument(
        "--method",
        choices=list(GRIDS),
        default="matching",
        help="unlearning method (default: %(default)s)",
    )
    unlearn.add_argument(
        "--by",
        choices=SOURCES,
        help="what predicts the targets of matching; newton and combined need models trained by "
        "SGD; combined, hybrid and datamodel need a run bank with logits (default: hybrid where "
        "the study has them, else trak)",
    )
    unlearn.add_argument(
        "--audit",
        type=int,
        default=0,
        metavar="N",
        help="compare N unlearned models with N oracles, retrained without the forget set; use 50 "
        "or more for a conclusion (default: no audit)",
    )
    unlearn.add_argument(
        "--budget",
        type=float,
        default=0.05,
        help="cost of unlearning as a fraction of retraining (default: %(default)s)",
    )
    unlearn.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the unlearned first checkpoint to this .safetensors file, with a certificate "
        "next to it as .json",
    )
    add_algorithm(unlearn)
    add_json(unlearn)
    add_machine(unlearn)
    unlearn.set_defaults(verb=_unlearn)


def _unlearn(options: argparse.Namespace) -> int:
    from engine.applications.unlearning.audit import audit
    from engine.applications.unlearning.certificate import write_unlearned
    from engine.applications.unlearning.checks import check_task
    from engine.applications.unlearning.rows import forget_set
    from engine.cli.progress import job_progress
    from engine.study.removal_sets import read_examples

    study = Study.open(options.study)
    check_task(study)
    forget = forget_set(study, read_examples(study, options.forget).tolist())
    if not options.audit and options.out is None:
        raise DataloupeError(
            "Nothing to do: --audit N audits N unlearned models, --out FILE writes one."
        )
    shared = {"budget": options.budget, "algorithm": options.algorithm, "device": options.device}
    shared["source"] = options.by
    found = certificate = None
    if options.audit:
        with job_progress("Unlearn", console(stderr=True)) as report:
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
        print_json(certificate if found is None else found.to_dict())
        return 0
    if found is not None:
        _print_audit(console(), study, found)
    if certificate is not None:
        print(f"Wrote {options.out} and its certificate {options.out.with_suffix('.json')}.")
    return 0


def _print_audit(shown: Console, study: Study, found: Audit) -> None:
    from engine.applications.unlearning.before_after import read_before_after
    from engine.applications.unlearning.made import read_made_by_audit
    from engine.applications.unlearning.method_verdict import GRADES, best, method_verdict

    listed = table(
        "method",
        "forget set",
        "retain set",
        "test set",
        "test accuracy",
        "cost",
        caption=f"KLoM, mean (95 %) / 95th percentile, between halves of {found.models} unlearned "
        f"models and of {found.models} oracles, retrained without the forget set "
        f"({counted(len(found.forget), 'example')}); capped at {found.ceiling:.1f}",
    )
    for one in found.methods:
        cells = [_klom(part.at_half) for part in (one.forget, one.retain, one.test)]
        listed.add_row(one.method, *cells, _accuracy(one.test.accuracy), f"{one.cost_share:.1%}")
    floor = [_klom(found.floor[part]) for part in ("forget", "retain", "test")]
    accuracy = found.methods[0].test.oracle_accuracy
    listed.add_row("floor (oracles)", *floor, _accuracy(accuracy), "100.0%")
    shown.print(listed)
    verdict = method_verdict(found, best(found))
    text = f"{GRADES[verdict.grade]}. {verdict.summary} {verdict.caution}".strip()
    shown.print(text, markup=False, highlight=False)
    tests = read_before_after(study, found, best(found), "test")
    if len(tests.rows) and tests.before.right is not None:
        shares = (tests.before, tests.unlearned, tests.oracle)
        before, after, oracle = (SHARE.text(one.share_right.mean()) for one in shares)
        shown.print(
            f"Of the {counted(len(tests.rows), 'test example')} that the forget set supports most, "
            f"{before} are answered right before, {after} after unlearning, and {oracle} by "
            "retrained models.",
            markup=False,
            highlight=False,
        )
    if (made := read_made_by_audit(study, found, best(found))) is not None:
        _print_made(shown, made)


def _print_made(shown: Console, found: MadeByAudit) -> None:
    """What models make from the same seeds."""
    far = {side: FEATURE_DISTANCE.text(some.mean()) for side, some in found.distances.items()}
    shown.print(
        f"From {counted(len(found.seeds), 'seed')}, pictures are {far['before']} away from those "
        f"of retrained models before, {far['unlearned']} after unlearning, and retrained models' "
        f"from each other {far['retrained']} (cosine distance of features).",
        markup=False,
        highlight=False,
    )


def _accuracy(share: float | None) -> str:
    return "–" if share is None else ACCURACY.text(share)


def _klom(found: Klom) -> str:
    return f"{KLOM.interval(found.mean)} / {KLOM.text(found.p95.mean)}"
