"""Audit unlearning: N models that unlearned against N that never saw what was to be forgotten.

    found = audit(study, ["train-17", "train-99"], methods=["matching"], models=50)
    found.of("matching").forget.klom.mean, found.floor["forget"].mean

Everything is kept in the study as it is done, one file a model, so that an audit that was
interrupted goes on, and another method or more models cost only what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine import store
from engine.applications.unlearning import klom
from engine.applications.unlearning.bank_changes import Source, check_source
from engine.applications.unlearning.changes import cost_of_changes, predicted_changes
from engine.applications.unlearning.klom import DIRECTION, Direction, Klom
from engine.applications.unlearning.models import (
    Said,
    Unlearning,
    asked_about,
    oracle_file,
    oracles,
    oracles_fingerprint,
    originals,
    read_said,
    train_models,
    unlearn_models,
    unlearned_file,
    unlearned_fingerprint,
)
from engine.applications.unlearning.requests import Rows, forget_set, labels_of, rows_of
from engine.applications.unlearning.settings import GRIDS, Cost, Hyper
from engine.applications.unlearning.settings_search import MODELS, search
from engine.applications.unlearning.validation import validation_set
from engine.applications.verification import complete
from engine.attribution.evaluation.quality import Measured
from engine.attribution.softmax import margins
from engine.build.retraining import Removal, check_recipe
from engine.running import processes
from engine.store import layout
from engine.store.errors import DataloupeError, StoreError
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader

CODE = 3
"""Raised whenever the same models would be judged otherwise."""
MODELS_DEFAULT = 50
FEWEST, MOST = 4, 1000
NOTHING = "nothing"
"""The method that every audit begins with: what there is to be gained."""
BUDGET = 0.05
"""Share of a retraining that a method may take."""
Part = Literal["forget", "retain", "test"]
PARTS: tuple[Part, ...] = ("forget", "retain", "test")
Report = Callable[[int, int, str], None]
"""Called with (done, total, what is being done)."""


@dataclass(frozen=True)
class Judged:
    """How near models came to the oracles on some examples.

    Attributes:
        klom: N against N.
        at_half: N/2 against N/2, which is what a floor is to be compared with.
        accuracy: Share of right predictions, mean over the models, and over the oracles.
        oracle_accuracy: The same of the oracles.
    """

    klom: Klom
    at_half: Klom
    accuracy: float
    oracle_accuracy: float


@dataclass(frozen=True)
class MethodAudit:
    """One method, judged.

    Attributes:
        method: Its name in `engine.applications.unlearning.settings.GRIDS`.
        hyper: What the search chose, or was given.
        forget, retain, test: On the forgotten examples, on others of the training set, on all
            test examples.
        membership: Advantage of telling forgotten examples from test examples by the margin: 2 ·
            AUC − 1, mean over models. 0 is none; what oracles have is in `Audit.membership`.
        cost_share: Of a retraining, for one model.
        once_share: What was needed once for all models (predicted changes), of a retraining. The
            search is not counted; oracle matching also needs the oracles.
        fingerprint: Fingerprint of the models that unlearned.
    """

    method: str
    hyper: dict[str, float]
    forget: Judged
    retain: Judged
    test: Judged
    membership: float
    cost_share: float
    once_share: float
    fingerprint: str


@dataclass(frozen=True)
class Audit:
    """Methods, judged by one set of oracles.

    Attributes:
        id: Stands for the question: asked again, it has the same.
        forget, forget_ids: Training rows, ascending, and their ids.
        models: N.
        direction: Of KLoM.
        source: What matching was told by.
        ceiling: The largest KLoM there is.
        floor: What half of the oracles are from the other half, by part.
        membership: The oracles' own.
        correlation, error: Predicted against real mean logits of oracles, by part: Pearson's of
            the changes, and root mean squared error; None where no method needed predictions.
        methods: In the order asked.
        budget: Share of a retraining that each could take.
        fingerprint: Fingerprint of the oracles.
        created, device: When (UTC), and on what.
    """

    id: str
    algorithm: str
    forget: list[int]
    forget_ids: list[str]
    models: int
    direction: Direction
    source: Source
    ceiling: float
    floor: dict[Part, Klom]
    membership: float
    correlation: dict[str, float] | None
    error: dict[str, float] | None
    methods: list[MethodAudit]
    budget: float
    fingerprint: str
    created: str
    device: str

    def of(self, method: str) -> MethodAudit:
        """What was found of a method. Raises KeyError where it was not asked about."""
        return {one.method: one for one in self.methods}[method]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Audit:
        """The reverse of `to_dict`."""
        methods = [
            MethodAudit(**{**one, **{part: _judged(one[part]) for part in PARTS}})
            for one in content["methods"]
        ]
        floor = {part: _klom(content["floor"][part]) for part in PARTS}
        return cls(**{**content, "methods": methods, "floor": floor})


def _klom(content: Mapping[str, Any]) -> Klom:
    return Klom(Measured(**content["mean"]), Measured(**content["p95"]), content["models"])


def _judged(content: Mapping[str, Any]) -> Judged:
    return Judged(**{**content, **{name: _klom(content[name]) for name in ("klom", "at_half")}})


def audit(
    study: StudyReader,
    forget: Iterable[int | str],
    *,
    methods: Sequence[str] = ("matching",),
    models: int = MODELS_DEFAULT,
    budget: float = BUDGET,
    algorithm: str | None = None,
    direction: Direction = DIRECTION,
    source: Source = "trak",
    hyper: Mapping[str, Hyper] | None = None,
    device: str = "auto",
    workers: int | None = None,
    report: Report | None = None,
) -> Audit:
    """Unlearn by some methods, and judge each by models that were really retrained.

    Args:
        forget: Rows or ids of training examples.
        methods: Names; `nothing` is always among them, as what there is to be gained.
        models: N: originals that unlearn, and oracles.
        budget: Share of a retraining that a method may take, the same for all.
        direction: Of KLoM.
        source: What matching is told by (`engine.applications.unlearning.bank_changes`).
        hyper: By method, in place of the search's choice.
        device, workers: As for `build`.
        report: Called as models are done.

    Raises:
        DataloupeError: No such example or method; nothing, a whole class or everything is to be
            forgotten; or a training failed.
        SpecError: The algorithm has no recipe, so there can be no oracles.
        StoreError: There are no scores, another process writes, or the disk is full.
        InterruptedBuild: Ctrl-C. What is finished is kept.
    """
    algorithm = check(study, algorithm, methods, models, budget, source)
    methods = list(dict.fromkeys([NOTHING, *methods]))
    asked = forget_set(study, forget)
    device = processes.pick_device(device)
    told = report or (lambda done, total, what: None)

    def during(what: str) -> Callable[[int, int], None]:
        return lambda done, total: told(done, total, what)

    train_models(study, originals(study, algorithm, models, device), workers, during("originals"))
    jobs = oracles(study, algorithm, asked, asked, models, device)
    train_models(study, jobs, workers, during("oracles"))
    searched = [m for m in methods if len(GRIDS[m]) > 1 and m not in (hyper or {})]
    choosing = min(models, MODELS)
    validation: Removal = ()
    if searched:
        validation = validation_set(study, algorithm, asked)
        jobs = oracles(study, algorithm, asked, validation, choosing, device)
        train_models(study, jobs, workers, during("oracles of the validation set"))
    if "oracle" in searched:
        alone = _left_alone(study, algorithm, asked, validation, choosing, device)
        unlearn_models(study, alone, workers, during("originals on the validation set"))
    files = [oracle_file(study, algorithm, asked, asked, number) for number in range(models)]
    rows = rows_of(study, asked)
    truth = read_said(files, rows.all)
    found = []
    for method in methods:
        if hyper and method in hyper:
            chosen = hyper[method]
        elif method in searched:
            template = template_of(
                study, algorithm, asked, validation, method, budget, device, choosing, source
            )
            told(0, 1, f"hyper-parameters of {method}")
            what = during(f"hyper-parameters of {method}")
            chosen = search(study, template, None, choosing, workers, what).hyper
        else:
            chosen = GRIDS[method][0]
        template = template_of(
            study, algorithm, asked, asked, method, budget, device, models, source
        )
        template = replace(template, hyper=chosen)
        each = [replace(template, seed=seed) for seed in range(models)]
        unlearn_models(study, each, workers, during(f"unlearning by {method}"))
        found.append(_method_audit(study, each, truth, rows, direction, source))
    return _keep(
        study, algorithm, asked, truth, rows, found, models, budget, direction, source, device
    )


def check(
    study: StudyReader,
    algorithm: str | None,
    methods: Sequence[str],
    models: int,
    budget: float,
    source: str = "trak",
) -> str:
    """The algorithm, if it can be audited so. Raises as `audit`."""
    algorithm = resolve_algorithm(study, algorithm)
    check_methods(methods, budget)
    if not FEWEST <= models <= MOST:
        raise DataloupeError(f"An audit takes {FEWEST} to {MOST:,} models, not {models:,}.")
    check_recipe(study, algorithm)
    check_scores(study, algorithm)
    check_source(study, algorithm, source)
    return algorithm


def check_methods(methods: Sequence[str], budget: float) -> None:
    """Refuse methods that there are not, and budgets that are none."""
    if not methods:
        raise DataloupeError(f"Name a method of unlearning: {', '.join(GRIDS)}.")
    for method in methods:
        if method not in GRIDS:
            known = ", ".join(GRIDS)
            raise DataloupeError(f"There is no method of unlearning {method!r}; there are {known}.")
    if not 0 < budget <= 1:
        raise DataloupeError(
            f"The budget is a share of a retraining, above 0 to 1, not {budget:g}."
        )


def check_scores(study: StudyReader, algorithm: str) -> None:
    """Refuse a study that has nothing to foretell by. Raises StoreError."""
    if not layout.weighting_file(study.root, algorithm).exists():
        raise StoreError(
            f"{study.root} has no scores of {algorithm} yet. `dataloupe build {study.root}` makes "
            "them."
        )


def retraining_cost(study: StudyReader, algorithm: str) -> int:
    """Example-gradients of training a model."""
    return study.spec.algorithms[algorithm].epochs * study.dataset.n_train


def template_of(
    study: StudyReader,
    algorithm: str,
    asked: Removal,
    removed: Removal,
    method: str,
    budget: float,
    device: str,
    models: int,
    source: Source = "trak",
) -> Unlearning:
    """The job of a method, with what it learns towards; of no seed yet."""
    changes = None
    if method == "matching":
        changes = predicted_changes(study, asked, removed, algorithm, device, source).path
    elif method == "oracle":
        changes = _real_changes(study, algorithm, asked, removed, models, device)
    gradients = 0 if method == NOTHING else round(budget * retraining_cost(study, algorithm))
    return Unlearning(
        study.root, algorithm, asked, removed, method, Hyper(), changes, gradients, 0, device
    )


def _real_changes(
    study: StudyReader, algorithm: str, asked: Removal, removed: Removal, models: int, device: str
) -> Path:
    """File of what really changes: mean logits of oracles less those of originals, on what methods
    learn from. Originals have been asked by then."""
    fingerprint = store.fingerprint_of(
        "real changes", CODE, oracles_fingerprint(study, algorithm, asked, removed), models
    )
    path = layout.logit_changes_file(study.root, algorithm, fingerprint)
    if not path.exists():
        files = [oracle_file(study, algorithm, asked, removed, m) for m in range(models)]
        after = read_said(files, asked_about(study, asked, removed))
        before = _originals_said(study, algorithm, asked, removed, models, device)
        parts = {"forget": np.array(removed, np.int64), "retain": rows_of(study, asked).learnt}
        changes = {
            f"{name}_change": after.of(part).mean(axis=0) - before.of(part).mean(axis=0)
            for name, part in parts.items()
        }
        store.write_tensors(path, changes, fingerprint)
    return path


def _originals_said(
    study: StudyReader, algorithm: str, asked: Removal, removed: Removal, models: int, device: str
) -> Said:
    """What the first originals say, as `nothing` left them."""
    jobs = _left_alone(study, algorithm, asked, removed, models, device)
    files = [unlearned_file(study, job) for job in jobs]
    return read_said(files, asked_about(study, asked, removed))


def _left_alone(
    study: StudyReader, algorithm: str, asked: Removal, removed: Removal, models: int, device: str
) -> list[Unlearning]:
    """Jobs of `nothing`, which ask the first originals."""
    nothing = template_of(study, algorithm, asked, removed, NOTHING, BUDGET, device, models)
    return [replace(nothing, seed=seed) for seed in range(models)]


# --- judging ------------------------------------------------------------------------------------


def _margins(study: StudyReader, said: Said, rows: Rows) -> dict[Part, np.ndarray]:
    """Margins by part: float64 `[N, n]`."""
    return {
        "forget": margins(said.of(rows.forget), labels_of(study, rows.forget)),
        "retain": margins(said.of(rows.audited), labels_of(study, rows.audited)),
        "test": margins(said.test, labels_of(study)),
    }


def _accuracies(study: StudyReader, said: Said, rows: Rows) -> dict[Part, float]:
    parts: dict[Part, tuple[np.ndarray, np.ndarray]] = {
        "forget": (said.of(rows.forget), labels_of(study, rows.forget)),
        "retain": (said.of(rows.audited), labels_of(study, rows.audited)),
        "test": (said.test, labels_of(study)),
    }
    return {
        part: float((logits.argmax(axis=2) == labels).mean())
        for part, (logits, labels) in parts.items()
    }


def membership(forget: np.ndarray, test: np.ndarray) -> float:
    """2 · AUC − 1 of telling forgotten from test examples by margins `[N, ·]`, mean over models."""
    found = []
    for members, others in zip(forget, test, strict=True):
        ordered = np.sort(others)
        below = np.searchsorted(ordered, members, "left")
        upto = np.searchsorted(ordered, members, "right")
        found.append((below + upto).mean() / len(others) - 1)
    return float(np.mean(found))


def _method_audit(
    study: StudyReader,
    jobs: Sequence[Unlearning],
    truth: Said,
    rows: Rows,
    direction: Direction,
    source: Source,
) -> MethodAudit:
    files = [unlearned_file(study, job) for job in jobs]
    said = read_said(files, rows.all)
    ours, theirs = _margins(study, said, rows), _margins(study, truth, rows)
    ours = {part: _finite(values) for part, values in ours.items()}
    right, oracle_right = _accuracies(study, said, rows), _accuracies(study, truth, rows)
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
            accuracy=right[part],
            oracle_accuracy=oracle_right[part],
        )
        for part in PARTS
    }
    job = jobs[0]
    retraining = retraining_cost(study, job.algorithm)
    cost = Cost(*(int(number) for number in store.read_tensors(files[0])["cost"]))
    once = 0
    if job.method == "matching":
        once = cost_of_changes(study, job.algorithm, job.asked, job.removed, source)
    return MethodAudit(
        method=job.method,
        hyper=asdict(job.hyper),
        forget=parts["forget"],
        retain=parts["retain"],
        test=parts["test"],
        membership=membership(ours["forget"], ours["test"]),
        cost_share=cost.share(retraining),
        once_share=once / retraining,
        fingerprint=unlearned_fingerprint(study, job),
    )


def _finite(values: np.ndarray) -> np.ndarray:
    """A model that diverged is as far away as can be."""
    far: np.ndarray = np.nan_to_num(values, nan=-_FAR).clip(-_FAR, _FAR)
    return far


_FAR = 1e6


def _agreement(
    study: StudyReader,
    algorithm: str,
    asked: Removal,
    truth: Said,
    rows: Rows,
    models: int,
    source: Source,
    device: str,
) -> tuple[dict[str, float], dict[str, float]]:
    """(correlation, root mean squared error) of predicted mean logits with the oracles', by part.

    Logits count relative to the other classes, and against the originals' mean: what is correlated
    is the change.
    """
    before = _originals_said(study, algorithm, asked, asked, models, device)
    changes = predicted_changes(study, asked, asked, algorithm, device, source)
    correlation, error = {}, {}
    for part, predicted, was, now in (
        ("forget", changes.forget, before.of(rows.forget), truth.of(rows.forget)),
        ("retain", changes.retain, before.of(rows.learnt), truth.of(rows.learnt)),
        ("test", changes.test, before.test, truth.test),
    ):
        actual = _centred(now.mean(axis=0) - was.mean(axis=0)).ravel()
        foretold = _centred(predicted).ravel()
        varies = np.std(actual) > 0 and np.std(foretold) > 0
        correlation[part] = float(np.corrcoef(actual, foretold)[0, 1]) if varies else 0.0
        error[part] = float(np.sqrt(np.mean((actual - foretold) ** 2)))
    return correlation, error


def _centred(logits: np.ndarray) -> np.ndarray:
    centred: np.ndarray = logits - logits.mean(axis=-1, keepdims=True)
    return centred


def _keep(
    study: StudyReader,
    algorithm: str,
    asked: Removal,
    truth: Said,
    rows: Rows,
    found: Sequence[MethodAudit],
    models: int,
    budget: float,
    direction: Direction,
    source: Source,
    device: str,
) -> Audit:
    theirs = _margins(study, truth, rows)
    correlation = error = None
    if any(one.method == "matching" for one in found):
        correlation, error = _agreement(
            study, algorithm, asked, truth, rows, models, source, device
        )
    fingerprint = oracles_fingerprint(study, algorithm, asked, asked)
    names = [one.method for one in found]
    chosen = [one.hyper for one in found]
    question = [models, budget, direction, source, names, chosen]
    key = store.fingerprint_of("audit", CODE, fingerprint, question)
    ids = study.table("train")["id"]
    done = Audit(
        id=key,
        algorithm=algorithm,
        forget=list(asked),
        forget_ids=[str(ids.iloc[row]) for row in asked],
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
        fingerprint=fingerprint,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device,
    )
    content = {"code": CODE, **done.to_dict()}
    store.write_json(layout.unlearning_audit_file(study.root, algorithm, key), content, key)
    return done


def read_audits(study: StudyReader, algorithm: str | None = None) -> list[Audit]:
    """All that are kept, oldest first. Raises StoreError for a file that is broken.

    Those that an older Dataloupe judged otherwise are left out: asked again, they cost no model.
    """
    files = layout.unlearning_audit_files(study.root, resolve_algorithm(study, algorithm))
    kept = [store.read_json(path) for path in files]
    found = [Audit.from_dict(one) for one in kept if one.pop("code", None) == CODE]
    return sorted(found, key=lambda one: (one.created, one.id))


# --- the job ------------------------------------------------------------------------------------


def check_job(study: StudyReader, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `run_job`, complete and checked. Raises as `audit`."""
    defaults: dict[str, Any] = {"forget": [], "methods": ["matching"]}
    defaults |= {"models": MODELS_DEFAULT, "budget": BUDGET, "algorithm": None}
    defaults |= {"direction": DIRECTION, "source": "trak", "device": "auto", "workers": None}
    asked = complete(defaults, parameters)
    algorithm = check(
        study,
        asked["algorithm"],
        asked["methods"],
        asked["models"],
        asked["budget"],
        asked["source"],
    )
    return asked | {"forget": list(forget_set(study, asked["forget"])), "algorithm": algorithm}


def run_job(study: StudyReader, parameters: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """A job of the queue: `parameters` are the arguments of `audit`; the answer names it."""
    found = audit(study, report=report, **parameters)
    return {
        "audit": found.id,
        "algorithm": found.algorithm,
        "forget": len(found.forget),
        "klom_forget": {one.method: one.forget.klom.mean.mean for one in found.methods},
        "floor_forget": found.floor["forget"].mean.mean,
    }
