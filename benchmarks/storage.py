"""Storage of training features: bytes per example, beside what they cost in LDS and in recall.

A part of `benchmarks.imagenet`. TRAK's primal, at its defaults, on the workload of DESIGN section
6: features are packed and read as a study stores and reads them, so the Gram matrix comes from
packed features, too. All kinds have the same checkpoints, projections and halves. Beside them are
features of gradients in mixed precision, and low-rank factors (`benchmarks.low_rank`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._report import log
from benchmarks.lds import Mean, default_solver, out_to_loss
from benchmarks.low_rank import RANKS, factored_projection, in_low_rank, low_rank_bytes, wide_scores
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
from engine.tasks import Task
from engine.tasks.precision import in_precision

KINDS: tuple[Storage, ...] = ("float32", "float16", "int8", "int4")
OTHERS = ("bfloat16", "wide", *(f"rank{rank}" for rank in RANKS))
"""Gradients in mixed precision with features in float32; and those of `benchmarks.low_rank`."""
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
    """`storage`: kind → `bytes`, `lds`, `loss`, `recall` and `correlation` by workload, beside
    float32; a loss is a share of float32's LDS, with its 95 % interval."""
    keys = "bytes", "lds", "loss", "recall", "correlation"
    table: dict[str, Any] = {kind: {key: {} for key in keys} for kind in (*KINDS, *OTHERS)}
    halves = int(os.environ.get("DATALOUPE_HALVES", "100"))
    for workload in WORKLOADS:
        width, found = scores_of(workload)
        masks, margins = (part[CHOSEN_ON:] for part in truth(workload, "test", halves))
        exact = found["float32"]
        best, _ = top_k(DenseScores([exact]), K)
        for kind in table:
            tau = found[kind]
            top, _ = top_k(DenseScores([tau]), K)
            entry = table[kind]
            entry["bytes"][workload.name] = bytes_of(workload, kind, width)
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
        "default_storage_ratio": round(
            bytes_per_row(4096, "float32") / bytes_per_row(4096, STORAGE), 2
        ),
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
    packed = _kept(workload, solver, "storage", KINDS, _in_kinds)
    return solver.proj_dim, packed | _kept(workload, solver, "others", OTHERS, _in_other_ways)


Compute = Callable[[nn.Module, Solver, int, torch.Tensor], Iterator[tuple[str, torch.Tensor]]]
"""(model, solver, number of the checkpoint, Q) → kinds and their scores `[n_test, n_train]`."""


def _kept(
    workload: Workload, solver: Solver, what: str, kinds: Sequence[str], compute: Compute
) -> dict[str, np.ndarray]:
    settings = {**asdict(solver), "reason": "", "storage": ""}
    del settings["precision"]
    models = [checkpoint_file(workload, number).stem for number in range(CHECKPOINTS)]
    fingerprint = store.fingerprint_of(what, CODE, models, settings, kinds)
    path = CACHE / "storage" / f"{workload.name}-{fingerprint}.safetensors"
    if not path.exists():
        means = {kind: Mean(solver.tempering) for kind in kinds}
        found: dict[str, np.ndarray] = {}
        for number in range(CHECKPOINTS):
            model = checkpoint(workload, number)
            q = out_to_loss(model)
            for kind, scores in compute(model, solver, number, torch.from_numpy(q)):
                found[kind] = means[kind].add(scores.numpy(), q)
            log(f"{workload.name}, {what}: checkpoint {number + 1} of {CHECKPOINTS}")
        store.write_tensors(path, found, fingerprint)
    return store.read_tensors(path, fingerprint)


def _in_kinds(
    model: nn.Module, solver: Solver, number: int, q: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """Features in each kind of storage."""
    phi, phi_test = _features(model, solver, number, task())
    for kind in KINDS:
        stored = torch.from_numpy(unpack(pack(phi.numpy(), kind))[:])
        factors = test_factors(gram([stored], solver, q), phi_test, solver.damping)
        yield kind, factors @ stored.T


def _in_other_ways(
    model: nn.Module, solver: Solver, number: int, q: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """Gradients in mixed precision, and low-rank factors beside all numbers of their matrices."""
    phi, phi_test = _features(model, solver, number, in_precision(task(), "bfloat16"))
    factors = test_factors(gram([phi], solver, q), phi_test, solver.damping)
    yield "bfloat16", factors @ phi.T
    projection = factored_projection(model, number)
    output = task().model_output
    whole, test = (
        torch.cat(list(features(model, output, batches_of(split)(), projection)))
        for split in ("train", "test")
    )
    yield "wide", wide_scores(whole, test, solver, q)
    for rank in RANKS:
        low = in_low_rank(whole, projection, rank)
        yield f"rank{rank}", wide_scores(low, test, solver, q)


def _features(
    model: nn.Module, solver: Solver, number: int, by: Task
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the training and the test examples, `[n, proj_dim]`."""
    train, test = batches_of("train"), batches_of("test")
    output = by.model_output
    projection = primal_projection(model, output, first_examples(train), solver, number)
    phi, phi_test = (
        torch.cat(list(features(model, output, batches(), projection))) for batches in (train, test)
    )
    return phi, phi_test


def bytes_of(workload: Workload, kind: str, width: int) -> int:
    """Bytes of one example's features."""
    if kind.startswith("rank"):
        projection = factored_projection(checkpoint(workload, 0), 0)
        return low_rank_bytes(projection, int(kind.removeprefix("rank")))
    if kind == "wide":
        return bytes_per_row(factored_projection(checkpoint(workload, 0), 0).width, "float32")
    return bytes_per_row(width, "float32" if kind == "bfloat16" else kind)  # type: ignore[arg-type]


def shared(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean share of each row of `wanted` that its row of `found` holds."""
    rows = [np.isin(a, b).mean() for a, b in zip(wanted, found, strict=True)]
    return float(np.mean(rows))
