"""Write a model that unlearned, with a certificate of the forget set, the method and the audit.

    write_unlearned(study, ["train-17"], Path("model.safetensors"), audited=audit(…))

The certificate is JSON next to the model. It names the forgotten examples, the method with its
settings and seed, the SHA-256 of the model before and after, and the audit, if there was one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine import store
from engine.applications.unlearning.audit_record import Audit, read_audits
from engine.applications.unlearning.checks import check_methods, check_scores
from engine.applications.unlearning.method_jobs import method_job
from engine.applications.unlearning.oracles import oracles_fingerprint
from engine.applications.unlearning.output_changes import changes_fingerprint
from engine.applications.unlearning.rows import forget_set
from engine.applications.unlearning.settings import BUDGET, Hyper
from engine.applications.unlearning.settings_search import grid_of
from engine.applications.unlearning.sources import Source, best_source, check_source
from engine.applications.unlearning.unlearned import unlearn
from engine.build.retraining import is_checkpoint, weights_file
from engine.build.stages.checkpoints import checkpoint_fingerprint
from engine.running import processes
from engine.running.jobs.parameters import complete
from engine.running.progress import Report
from engine.store import layout
from engine.store.errors import DataloupeError
from engine.study.examples import FILE, read_texts_of
from engine.study.models import checkpoint_seed
from engine.study.names import resolve_algorithm
from engine.study.reader import StudyReader

CODE = 1
"""Increment when the same request would give a different model or certificate."""


def write_unlearned(
    study: StudyReader,
    forget: Iterable[int | str],
    out: Path,
    *,
    method: str = "matching",
    budget: float = BUDGET,
    algorithm: str | None = None,
    source: Source | None = None,
    checkpoint: int = 0,
    audited: Audit | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Unlearn from one checkpoint; write the model (.safetensors) and its certificate (.json).

    Args:
        audited: An audit of the method, for its hyper-parameters. Without one, the defaults are
            used, and the certificate has no audit.

    Returns:
        The certificate.

    Raises:
        As `audit`, but the algorithm needs no recipe.
    """
    from engine.training.weights import save_weights

    algorithm = resolve_algorithm(study, algorithm)
    check_methods(study, [method], budget)
    check_scores(study, algorithm)
    source = source or best_source(study, algorithm)
    if out.suffix != ".safetensors":
        raise DataloupeError(f"{out} must end in .safetensors, the format of the model.")
    _check_oracles(method, audited)
    removed = forget_set(study, forget)
    device = processes.pick_device(device)
    models = audited.models if audited else 0
    job = method_job(study, algorithm, removed, removed, method, budget, device, models, source)
    hyper = Hyper.from_dict(audited.of(method).hyper) if audited else grid_of(study, method)[0]
    job = replace(job, hyper=hyper, seed=checkpoint)
    _check_checkpoint(study, algorithm, checkpoint)
    model, cost = unlearn(study, job)
    ids = study.table("train")["id"]
    files = read_texts_of(study, "train", FILE, removed)
    certificate = {
        "dataset": study.dataset.fingerprint,
        "algorithm": algorithm,
        "forgotten": [
            {"row": row, "id": str(ids.iloc[row]), "file": file}
            for row, file in zip(removed, files, strict=True)
        ],
        "method": method,
        "source": source,
        "hyper": asdict(hyper),
        "checkpoint": checkpoint,
        "seed": checkpoint_seed(study, checkpoint),
        "budget": budget,
        "example_gradients": cost.gradients,
        "example_forwards": cost.forwards,
        "original_sha256": store.file_digest(weights_file(study, algorithm, checkpoint)),
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
        raise DataloupeError("Oracle matching needs oracles: run an audit first.")


def _check_checkpoint(study: StudyReader, algorithm: str, checkpoint: int) -> None:
    if not weights_file(study, algorithm, checkpoint).exists():
        raise DataloupeError(f"{algorithm} has no checkpoint {checkpoint} to unlearn from.")


# --- the job ------------------------------------------------------------------------------------


def check_job(study: StudyReader, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of `run_job`, complete and checked. Raises as `write_unlearned`.

    With an audit, the forget set, the budget and the source are those of the audit.
    """
    defaults: dict[str, Any] = {"forget": [], "method": "matching", "budget": BUDGET}
    defaults |= {"algorithm": None, "source": None, "checkpoint": 0, "audit": None}
    request = complete(defaults | {"device": "auto"}, parameters)
    algorithm = resolve_algorithm(study, request["algorithm"])
    audited = _audit(study, algorithm, request["audit"], request["method"])
    if audited is not None:
        request |= {"forget": audited.forget, "budget": audited.budget, "source": audited.source}
    check_methods(study, [request["method"]], request["budget"])
    check_scores(study, algorithm)
    request["source"] = request["source"] or best_source(study, algorithm)
    check_source(study, algorithm, request["source"])
    _check_oracles(request["method"], audited)
    _check_checkpoint(study, algorithm, request["checkpoint"])
    return request | {"forget": list(forget_set(study, request["forget"])), "algorithm": algorithm}


def run_job(study: StudyReader, parameters: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Run as a job of the queue: write the model into the study, unless it exists."""
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
    """File of a checked job's model. It is complete once its certificate exists."""
    algorithm, checkpoint = parameters["algorithm"], parameters["checkpoint"]
    forget, method, source = tuple(parameters["forget"]), parameters["method"], parameters["source"]
    own = is_checkpoint(study, algorithm, checkpoint)
    name = store.fingerprint_of(
        "certified",
        CODE,
        oracles_fingerprint(study, algorithm, forget, forget),
        [method, parameters["budget"], checkpoint, parameters["audit"]],
        checkpoint_fingerprint(study, algorithm, checkpoint) if own else None,
        changes_fingerprint(study, forget, forget, algorithm, source)
        if method == "matching"
        else None,
    )
    return layout.unlearned_model_file(study.root, algorithm, name)


def _audit(study: StudyReader, algorithm: str, name: str | None, method: str) -> Audit | None:
    """The audit with this id. Raises DataloupeError if there is none that includes the method."""
    if name is None:
        return None
    for one in read_audits(study, algorithm):
        if one.id == name and method in [each.method for each in one.methods]:
            return one
    raise DataloupeError(f"{algorithm} has no audit {name[:40]} of {method}.")
