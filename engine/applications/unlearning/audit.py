"""Audit unlearning: compare N models that unlearned with N oracles that never saw the forget set.

    found = audit(study, ["train-17", "train-99"], methods=["matching"], models=50)
    found.of("matching").forget.klom.mean, found.floor["forget"].mean

Every model is kept as soon as it is done. So an interrupted audit continues where it stopped, and
an additional method or more models cost only the new work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from engine import store
from engine.applications.unlearning import klom
from engine.applications.unlearning.audit_record import (
    CODE,
    PARTS,
    Audit,
    MethodAudit,
    keep_audit,
)
from engine.applications.unlearning.checks import MODELS_DEFAULT, check_audit
from engine.applications.unlearning.judging import (
    agreement,
    judge_method,
    margins_by_part,
    membership,
)
from engine.applications.unlearning.klom import DIRECTION, Direction
from engine.applications.unlearning.method_jobs import (
    method_job,
    original_outputs,
    unchanged_originals,
)
from engine.applications.unlearning.oracles import (
    oracle_outputs,
    oracles,
    oracles_fingerprint,
    originals,
)
from engine.applications.unlearning.output_changes import predicted_changes
from engine.applications.unlearning.outputs import AuditedOutputs
from engine.applications.unlearning.predicted_size import size_of_changes
from engine.applications.unlearning.rows import forget_set, matched_of, rows_of
from engine.applications.unlearning.settings import BUDGET, UNCHANGED, Hyper
from engine.applications.unlearning.settings_search import MODELS, grid_of, search
from engine.applications.unlearning.sources import Source, best_source
from engine.applications.unlearning.unlearned import unlearn_models
from engine.applications.unlearning.validation import validation_set
from engine.build.retraining import (
    Removal,
    RetrainedModel,
    retrained_fingerprint,
    train_missing,
)
from engine.running import processes
from engine.running.progress import Report
from engine.study.examples import FILE, read_texts_of
from engine.study.reader import StudyReader


def audit(
    study: StudyReader,
    forget: Iterable[int | str],
    *,
    methods: Sequence[str] = ("matching",),
    models: int = MODELS_DEFAULT,
    budget: float = BUDGET,
    algorithm: str | None = None,
    direction: Direction = DIRECTION,
    source: Source | None = None,
    hyper: Mapping[str, Hyper] | None = None,
    device: str = "auto",
    workers: int | None = None,
    report: Report | None = None,
) -> Audit:
    """Unlearn by some methods, and compare each with retrained models.

    Args:
        forget: Rows or ids of training examples.
        methods: Names of methods; `nothing` is always included, for comparison.
        models: N, the number of originals that unlearn and of oracles.
        budget: Largest cost of each method, as a share of a retraining.
        direction: Direction of KLoM.
        source: Source of the predicted changes that matching learns
            (`engine.applications.unlearning.bank_changes`); None: the best that there is.
        hyper: Hyper-parameters by method, instead of searching for them.
        device: As for `build`.
        workers: As for `build`.
        report: Called as models are done.

    Raises:
        MissingCapability: The study has no outputs that unlearning can match.
        DataloupeError: No such example or method; the forget set is empty, everything, or all of a
            class; or a training failed.
        SpecError: The algorithm has no recipe, so there can be no oracles.
        StoreError: There are no scores, another process writes, or the disk is full.
        InterruptedBuild: Ctrl-C. What is finished is kept.
    """
    algorithm = check_audit(study, algorithm, methods, models, budget, source)
    source = source or best_source(study, algorithm)
    methods = list(dict.fromkeys([UNCHANGED, *methods]))
    removed = forget_set(study, forget)
    device = processes.pick_device(device)
    on_progress = report or (lambda done, total, what: None)

    def during(what: str) -> Callable[[int, int], None]:
        return lambda done, total: on_progress(done, total, what)

    def train(wanted: Sequence[RetrainedModel], what: str) -> None:
        train_missing(
            study,
            algorithm,
            wanted,
            device,
            workers,
            lambda model, done, total: on_progress(done, total, what),
        )

    with processes.keeping_workers(device):
        train(originals(models), "originals")
        train(oracles(study, removed, removed, models), "oracles")
        searched = [m for m in methods if len(grid_of(study, m)) > 1 and m not in (hyper or {})]
        choosing = min(models, MODELS)
        validation: Removal = ()
        if searched:
            validation = validation_set(study, algorithm, removed)
            train(oracles(study, removed, validation, choosing), "oracles of the validation set")
        sized = "matching" in searched and matched_of(study).together
        if "oracle" in searched or sized:
            jobs = unchanged_originals(study, algorithm, removed, validation, choosing, device)
            unlearn_models(study, jobs, workers, during("originals on the validation set"))
        truth, rows = (
            oracle_outputs(study, algorithm, removed, removed, models),
            rows_of(study, removed),
        )
        found = []
        for method in methods:
            if hyper and method in hyper:
                chosen = hyper[method]
            elif method in searched:
                job = method_job(
                    study, algorithm, removed, validation, method, budget, device, choosing, source
                )
                on_progress(0, 1, f"hyper-parameters of {method}")
                what = during(f"hyper-parameters of {method}")
                grid = grid_of(study, method)
                if sized and method == "matching":
                    size = size_of_changes(
                        study, algorithm, removed, validation, choosing, device, source
                    )
                    grid = [replace(one, scale=size) for one in grid]
                chosen = search(study, job, grid, choosing, workers, what).hyper
            else:
                chosen = grid_of(study, method)[0]
            job = method_job(
                study, algorithm, removed, removed, method, budget, device, models, source
            )
            jobs = [replace(job, hyper=chosen, seed=seed) for seed in range(models)]
            unlearn_models(study, jobs, workers, during(f"unlearning by {method}"))
            # Doing nothing comes first, so the originals' outputs are there for all methods.
            before = original_outputs(study, algorithm, removed, removed, models, device)
            found.append(judge_method(study, jobs, before, truth, rows, direction, source))
    done = _audit(
        study, algorithm, removed, truth, found, models, budget, direction, source, device
    )
    keep_audit(study, done)
    return done


def _audit(
    study: StudyReader,
    algorithm: str,
    forget: Removal,
    oracles: AuditedOutputs,
    found: Sequence[MethodAudit],
    models: int,
    budget: float,
    direction: Direction,
    source: Source,
    device: str,
) -> Audit:
    """The record, once every method is judged."""
    rows = rows_of(study, forget)
    theirs = margins_by_part(study, oracles, rows)
    correlation = error = None
    if any(one.method == "matching" for one in found):
        before = original_outputs(study, algorithm, forget, forget, models, device)
        changes = predicted_changes(study, forget, forget, algorithm, device, source)
        correlation, error = agreement(before, oracles, changes, rows, matched_of(study).relative)
    fingerprint = oracles_fingerprint(study, algorithm, forget, forget)
    names = [one.method for one in found]
    chosen = [one.hyper for one in found]
    request = [models, budget, direction, source, names, chosen]
    ids = study.table("train")["id"]
    return Audit(
        id=store.fingerprint_of("audit", CODE, fingerprint, request),
        algorithm=algorithm,
        forget=list(forget),
        forget_ids=[str(ids.iloc[row]) for row in forget],
        models=models,
        direction=direction,
        source=source,
        ceiling=klom.ceiling(),
        floor={
            part: klom.summary(klom.floor(theirs[part], direction), models // 2) for part in PARTS
        },
        membership=membership(theirs["forget"], theirs["test"]),
        correlation=correlation,
        error=error,
        methods=list(found),
        budget=budget,
        fingerprint=retrained_fingerprint(study, algorithm, forget),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device,
        forget_files=read_texts_of(study, "train", FILE, forget),
    )
