"""A model that unlearned, to take away, and its certificate: what was forgotten, how, how well.

    write_unlearned(study, ["train-17"], Path("model.safetensors"), audited=audit(…))

The certificate is JSON beside the model. It names the forgotten examples, the method with its
settings and seed, SHA-256 of the model before and after, and the audit, or that there was none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine import store
from engine.applications.unlearning.audit import (
    BUDGET,
    Audit,
    check_methods,
    check_scores,
    read_audits,
    template_of,
)
from engine.applications.unlearning.bank_changes import Source, check_source
from engine.applications.unlearning.changes import changes_fingerprint
from engine.applications.unlearning.models import (
    is_checkpoint,
    oracles_fingerprint,
    original_file,
    unlearn,
)
from engine.applications.unlearning.requests import forget_set
from engine.applications.unlearning.settings import GRIDS, Hyper
from engine.applications.verification import complete
from engine.build.stages.checkpoints import checkpoint_fingerprint
from engine.running import processes
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.study.models import checkpoint_seed
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader

CODE = 1
"""Raised whenever the same question would give another model or certificate."""


def write_unlearned(
    study: StudyReader,
    forget: Iterable[int | str],
    out: Path,
    *,
    method: str = "matching",
    budget: float = BUDGET,
    algorithm: str | None = None,
    source: Source = "trak",
    checkpoint: int = 0,
    audited: Audit | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Unlearn from one checkpoint; write the model (.safetensors) and its certificate (.json).

    Args:
        audited: The audit of the method, whose hyper-parameters are then taken; without one they
            are the defaults, and the certificate says that nothing was audited.

    Returns:
        The certificate.

    Raises:
        As `audit`; a study whose algorithm has no recipe can unlearn, but not be audited.
    """
    from engine.training.weights import save_weights

    algorithm = resolve_algorithm(study, algorithm)
    check_methods([method], budget)
    check_scores(study, algorithm)
    if out.suffix != ".safetensors":
        raise DataloupeError(f"{out}: a model is written as .safetensors, so name it that.")
    _check_oracles(method, audited)
    asked = forget_set(study, forget)
    device = processes.pick_device(device)
    models = audited.models if audited else 0
    template = template_of(study, algorithm, asked, asked, method, budget, device, models, source)
    hyper = Hyper(**audited.of(method).hyper) if audited else GRIDS[method][0]
    job = replace(template, hyper=hyper, seed=checkpoint)
    _check_checkpoint(study, algorithm, checkpoint)
    model, cost = unlearn(study, job)
    ids = study.table("train")["id"]
    certificate = {
        "dataset": study.dataset.fingerprint,
        "algorithm": algorithm,
        "forgotten": [{"row": row, "id": str(ids.iloc[row])} for row in asked],
        "method": method,
        "source": source,
        "hyper": asdict(hyper),
        "checkpoint": checkpoint,
        "seed": checkpoint_seed(study, checkpoint),
        "budget": budget,
        "example_gradients": cost.gradients,
        "example_forwards": cost.forwards,
        "original_sha256": store.file_digest(original_file(study, algorithm, checkpoint)),
        "audit": None if audited is None else audited.to_dict(),
    }
    fingerprint = store.fingerprint_of("unlearned model", CODE, certificate)
    with store.writing_to(out):
        save_weights(out, model, fingerprint, {"method": method})
        certificate["model_sha256"] = store.file_digest(out)
        certificate["file"] = out.name
        certificate["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        store.write_json(out.with_suffix(".json"), certificate, fingerprint)
    return certificate


def _check_oracles(method: str, audited: Audit | None) -> None:
    if method == "oracle" and audited is None:
        raise DataloupeError("Oracle matching needs oracles: ask for an audit too.")


def _check_checkpoint(study: StudyReader, algorithm: str, checkpoint: int) -> None:
    if not original_file(study, algorithm, checkpoint).exists():
        raise DataloupeError(f"{algorithm} has no checkpoint {checkpoint} to unlearn from.")


# --- the job ------------------------------------------------------------------------------------


def check_job(study: StudyReader, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `run_job`, complete and checked. Raises as `write_unlearned`.

    With an audit, what is forgotten, by what and how, are its own.
    """
    defaults: dict[str, Any] = {"forget": [], "method": "matching", "budget": BUDGET}
    defaults |= {"algorithm": None, "source": "trak", "checkpoint": 0, "audit": None}
    asked = complete(defaults | {"device": "auto"}, parameters)
    algorithm = resolve_algorithm(study, asked["algorithm"])
    audited = _audit(study, algorithm, asked["audit"], asked["method"])
    if audited is not None:
        asked |= {"forget": audited.forget, "budget": audited.budget, "source": audited.source}
    check_methods([asked["method"]], asked["budget"])
    check_scores(study, algorithm)
    check_source(study, algorithm, asked["source"])
    _check_oracles(asked["method"], audited)
    _check_checkpoint(study, algorithm, asked["checkpoint"])
    return asked | {"forget": list(forget_set(study, asked["forget"])), "algorithm": algorithm}


def run_job(
    study: StudyReader, parameters: Mapping[str, Any], report: Callable[[int, int, str], None]
) -> dict[str, Any]:
    """A job of the queue: write the model into the study, unless it is there."""
    path = certified_file(study, parameters)
    if not path.with_suffix(".json").exists():
        report(0, 1, "unlearning")
        arguments = {name: value for name, value in parameters.items() if name != "audit"}
        arguments["audited"] = _audit(
            study, parameters["algorithm"], parameters["audit"], parameters["method"]
        )
        write_unlearned(study, out=path, **arguments)
    report(1, 1, "unlearning")
    return {"model": path.name}


def certified_file(study: StudyReader, parameters: Mapping[str, Any]) -> Path:
    """Where the model of a checked job is, or will be; whole when its certificate is there."""
    algorithm, checkpoint = parameters["algorithm"], parameters["checkpoint"]
    asked, method, source = tuple(parameters["forget"]), parameters["method"], parameters["source"]
    own = is_checkpoint(study, algorithm, checkpoint)
    name = store.fingerprint_of(
        "certified",
        CODE,
        oracles_fingerprint(study, algorithm, asked, asked),
        [method, parameters["budget"], checkpoint, parameters["audit"]],
        checkpoint_fingerprint(study, algorithm, checkpoint) if own else None,
        changes_fingerprint(study, asked, asked, algorithm, source)
        if method == "matching"
        else None,
    )
    return layout.unlearned_model_file(study.root, algorithm, name)


def _audit(study: StudyReader, algorithm: str, name: str | None, method: str) -> Audit | None:
    """The audit of this id. Raises DataloupeError where there is none, or not of the method."""
    if name is None:
        return None
    for one in read_audits(study, algorithm):
        if one.id == name and method in [each.method for each in one.methods]:
            return one
    raise DataloupeError(f"{algorithm} has no audit {name[:40]} of {method}.")
