"""Storage of training features: bytes per example, beside what they cost in LDS and in recall.

A part of `benchmarks.imagenet`. TRAK's primal, at its defaults, on the workload of DESIGN section
6: features are packed and read as a study stores and reads them, so the Gram matrix comes from
packed features, too. All kinds have the same checkpoints, projections and halves.
"""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from benchmarks._report import log
from benchmarks.lds import Mean, default_solver, out_to_loss
from benchmarks.workload import (
    CACHE,
    CNN,
    MLP,
    Workload,
    batches_of,
    checkpoint,
    checkpoint_file,
    task,
    truth,
)
from engine import store
from engine.attribution.evaluation.lds import bootstrap_means, lds
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.packed_rows import Storage, bytes_per_row, pack, unpack
from engine.attribution.scores.top_k import top_k
from engine.attribution.trak.choose_solver import STORAGE
from engine.attribution.trak.kernel import first_examples
from engine.attribution.trak.primal import gram, primal_projection, test_factors
from engine.attribution.trak.projection import features
from engine.attribution.trak.solver import Solver
from engine.store.spec import TrakSpec

KINDS: tuple[Storage, ...] = ("float32", "float16", "int8", "int4")
CHECKPOINTS = 5
WORKLOADS = replace(MLP, seeds=1), CNN
"""One run of each half. All kinds are compared on the same outcomes, so noise matters less."""
CHOSEN_ON = 25
"""The size of `int4`'s blocks was chosen on so many of the halves: they are left out."""
RESAMPLES = 500
K = 100
CODE = 2
"""Raised when the same features would be packed differently."""


def measure_storage() -> dict[str, Any]:
    """`storage`: kind → `bytes`, and `lds`, `loss`, `recall`, `correlation` by workload, beside
    float32; a loss is a share of float32's LDS, with its 95 % interval."""
    table: dict[str, Any] = {
        kind: {"bytes": 0, "lds": {}, "loss": {}, "recall": {}, "correlation": {}} for kind in KINDS
    }
    halves = int(os.environ.get("DATALOUPE_HALVES", "100"))
    for workload in WORKLOADS:
        width, found = scores_of(workload)
        masks, margins = (part[CHOSEN_ON:] for part in truth(workload, "test", halves))
        exact = found["float32"]
        best, _ = top_k(DenseScores([exact]), K)
        for kind in KINDS:
            tau = found[kind]
            top, _ = top_k(DenseScores([tau]), K)
            entry = table[kind]
            entry["bytes"] = bytes_per_row(width, kind)
            entry["lds"][workload.name] = round(lds(tau, masks, margins).mean, 4)
            entry["loss"][workload.name] = _loss(tau, exact, masks, margins)
            recall = shared(top.support_index, best.support_index)
            entry["recall"][workload.name] = round(recall, 4)
            rows = [np.corrcoef(a, b)[0, 1] for a, b in zip(tau, exact, strict=True)]
            entry["correlation"][workload.name] = round(float(np.mean(rows)), 5)
            log(f"{workload.name} {kind}: {entry}")
    losses = [
        table[STORAGE]["loss"][name]["mean"] for name in (workload.name for workload in WORKLOADS)
    ]
    return {
        "storage": table,
        "storage_halves": halves - CHOSEN_ON,
        "default_storage": STORAGE,
        "default_lds_loss": round(max(losses), 4),
        "default_storage_ratio": round(table["float32"]["bytes"] / table[STORAGE]["bytes"], 2),
    }


def _loss(
    scores: np.ndarray, exact: np.ndarray, masks: np.ndarray, margins: np.ndarray
) -> dict[str, float]:
    """Share of the LDS that scores lose; both resampled alike, over test examples and halves."""
    means = [
        bootstrap_means(
            one @ masks.T.astype(one.dtype), margins.T, RESAMPLES, np.random.default_rng(0)
        )
        for one in (scores, exact)
    ]
    low, high = np.quantile(1 - means[0] / means[1], [0.025, 0.975])
    mean = 1 - lds(scores, masks, margins).mean / lds(exact, masks, margins).mean
    return {"mean": round(mean, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def scores_of(workload: Workload) -> tuple[int, dict[str, np.ndarray]]:
    """(features of an example, kind → τ `[n_test, n_train]` over the checkpoints). Kept in
    `.bench/`, named by what they come from."""
    solver = default_solver(workload, TrakSpec(solver="primal"))
    settings = {**asdict(solver), "reason": "", "storage": ""}
    models = [checkpoint_file(workload, number).stem for number in range(CHECKPOINTS)]
    fingerprint = store.fingerprint_of("storage", CODE, models, settings, KINDS)
    path = CACHE / "storage" / f"{workload.name}-{fingerprint}.safetensors"
    if not path.exists():
        store.write_tensors(path, _compute(workload, solver), fingerprint)
    return solver.proj_dim, store.read_tensors(path, fingerprint)


def _compute(workload: Workload, solver: Solver) -> dict[str, np.ndarray]:
    means = {kind: Mean(solver.tempering) for kind in KINDS}
    found: dict[str, np.ndarray] = {}
    for number in range(CHECKPOINTS):
        model = checkpoint(workload, number)
        q = out_to_loss(model)
        train, test = batches_of("train"), batches_of("test")
        output = task().model_output
        projection = primal_projection(model, output, first_examples(train), solver, number)
        phi, phi_test = (
            torch.cat(list(features(model, output, batches(), projection)))
            for batches in (train, test)
        )
        for kind in KINDS:
            stored = torch.from_numpy(unpack(pack(phi.numpy(), kind))[:])
            factors = test_factors(
                gram([stored], solver, torch.from_numpy(q)), phi_test, solver.damping
            )
            found[kind] = means[kind].add((factors @ stored.T).numpy(), q)
        log(f"{workload.name}: checkpoint {number + 1} of {CHECKPOINTS}")
    return found


def shared(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean share of each row of `wanted` that its row of `found` holds."""
    rows = [np.isin(a, b).mean() for a, b in zip(wanted, found, strict=True)]
    return float(np.mean(rows))
