"""Compare the models of a method with oracles: KLoM, accuracy, membership, and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from engine import store
from engine.applications.unlearning import klom
from engine.applications.unlearning.audit_record import PARTS, Judged, MethodAudit, Part
from engine.applications.unlearning.cost import retraining_cost
from engine.applications.unlearning.klom import Direction
from engine.applications.unlearning.model_tests import (
    membership_attack,
    p_closer,
    p_differs,
    remembered,
    share_of_way,
)
from engine.applications.unlearning.output_changes import OutputChanges, cost_of_changes
from engine.applications.unlearning.outputs import (
    AuditedOutputs,
    Outputs,
    margins_of,
    read_outputs,
    right_of,
)
from engine.applications.unlearning.rows import Rows
from engine.applications.unlearning.settings import UNCHANGED, Cost
from engine.applications.unlearning.sources import Source
from engine.applications.unlearning.unlearned import (
    Unlearning,
    unlearned_file,
    unlearned_fingerprint,
)
from engine.study.reader import StudyReader

_FAR = 1e6
"""Margin, either way, of a model that diverged."""


def margins_by_part(
    study: StudyReader, outputs: AuditedOutputs, rows: Rows
) -> dict[Part, np.ndarray]:
    """Margins float64 `[N, n]` on each part of the examples."""
    return {part: margins_of(study, some) for part, some in _parts(outputs, rows).items()}


def _accuracies(
    study: StudyReader, outputs: AuditedOutputs, rows: Rows
) -> dict[Part, float | None]:
    right = {part: right_of(study, some) for part, some in _parts(outputs, rows).items()}
    return {part: None if some is None else float(some.mean()) for part, some in right.items()}


def _parts(outputs: AuditedOutputs, rows: Rows) -> dict[Part, Outputs]:
    return {
        "forget": outputs.of(rows.forget),
        "retain": outputs.of(rows.audited),
        "test": outputs.test,
    }


def membership(forget: np.ndarray, test: np.ndarray) -> float:
    """2 · AUC − 1 of separating forgotten from test margins `[N, ·]`, mean over models."""
    found = []
    for members, others in zip(forget, test, strict=True):
        ordered = np.sort(others)
        below = np.searchsorted(ordered, members, "left")
        upto = np.searchsorted(ordered, members, "right")
        found.append((below + upto).mean() / len(others) - 1)
    return float(np.mean(found))


def judge_method(
    study: StudyReader,
    jobs: Sequence[Unlearning],
    originals: AuditedOutputs,
    oracles: AuditedOutputs,
    rows: Rows,
    direction: Direction,
    source: Source,
) -> MethodAudit:
    """Compare the models of one method, one job each, with as many oracles.

    Args:
        originals: Of the models that the method started from, in the same order.
    """
    files = [unlearned_file(study, job) for job in jobs]
    unlearned = read_outputs(study, files, rows.all)
    ours, before, theirs = (
        margins_by_part(study, outputs, rows) for outputs in (unlearned, originals, oracles)
    )
    ours = {part: _finite(values) for part, values in ours.items()}
    correct, oracle_correct = (
        _accuracies(study, outputs, rows) for outputs in (unlearned, oracles)
    )
    parts = {
        part: Judged(
            klom=klom.summary(
                klom.klom(unlearned=ours[part], oracle=theirs[part], direction=direction),
                len(jobs),
            ),
            at_half=klom.summary(
                klom.at_half(unlearned=ours[part], oracle=theirs[part], direction=direction),
                len(jobs) // 2,
            ),
            accuracy=correct[part],
            oracle_accuracy=oracle_correct[part],
        )
        for part in PARTS
    }
    share = None
    if jobs[0].method != UNCHANGED:
        share = share_of_way(ours["forget"], before["forget"], theirs["forget"], direction)
    job = jobs[0]
    retraining = retraining_cost(study, job.algorithm)
    cost = Cost(*(int(number) for number in store.read_tensors(files[0])["cost"]))
    once = 0
    if job.method == "matching":
        once = cost_of_changes(study, job.algorithm, job.forget, job.removed, source)
    return MethodAudit(
        method=job.method,
        hyper=asdict(job.hyper),
        forget=parts["forget"],
        retain=parts["retain"],
        test=parts["test"],
        share_of_way=share,
        attack=membership_attack(ours["forget"], theirs["forget"]),
        remembered=[int(rows.forget[at]) for at in remembered(ours["forget"], theirs["forget"])],
        differs={part: p_differs(ours[part], theirs[part], direction) for part in PARTS},
        closer={
            part: p_closer(ours[part], before[part], theirs[part], direction) for part in PARTS
        },
        membership=membership(ours["forget"], ours["test"]),
        cost_share=cost.share(retraining),
        once_share=once / retraining,
        fingerprint=unlearned_fingerprint(study, job),
    )


def _finite(values: np.ndarray) -> np.ndarray:
    """Margins, with those of diverged models as far away as possible."""
    far: np.ndarray = np.nan_to_num(values, nan=-_FAR).clip(-_FAR, _FAR)
    return far


def agreement(
    originals: AuditedOutputs,
    oracles: AuditedOutputs,
    changes: OutputChanges,
    rows: Rows,
    relative: bool,
) -> tuple[dict[str, float], dict[str, float]]:
    """(correlation, root mean squared error) of predicted and actual changes, by part.

    Changes are those of the mean of what is matched.

    Args:
        relative: Whether only differences of an example's outputs count, as with class logits.
    """
    correlation, error = {}, {}
    for part, change, before, after in (
        ("forget", changes.forget, originals.of(rows.forget), oracles.of(rows.forget)),
        ("retain", changes.retain, originals.of(rows.learned), oracles.of(rows.learned)),
        ("test", changes.test, originals.test, oracles.test),
    ):
        actual, predicted = (
            (_centered(some) if relative else some).ravel()
            for some in (after.matched.mean(axis=0) - before.matched.mean(axis=0), change)
        )
        varies = np.std(actual) > 0 and np.std(predicted) > 0
        correlation[part] = float(np.corrcoef(actual, predicted)[0, 1]) if varies else 0.0
        error[part] = float(np.sqrt(np.mean((actual - predicted) ** 2)))
    return correlation, error


def _centered(logits: np.ndarray) -> np.ndarray:
    centered: np.ndarray = logits - logits.mean(axis=-1, keepdims=True)
    return centered
