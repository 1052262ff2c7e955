"""LDS of our default settings, traker and EK-FAC on the workload of DESIGN section 6.

    python -m benchmarks.lds --json [--save]

Methods are evaluated on the 100 test masks, which were not used to choose any default. Seconds are
per checkpoint, with two threads: from a trained model to the scores of 1,000 test and 5,000
training pictures; the median over checkpoints. Results of other tools that take minutes are kept in
`.bench/` with their times.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks._report import log, report
from benchmarks.rivals import RIVALS
from benchmarks.workload import (
    CACHE,
    CNN,
    ENCODING,
    MLP,
    Purpose,
    Workload,
    batches_of,
    checkpoint,
    checkpoint_file,
    data,
    prepare_all,
    task,
    truth,
)
from engine import store
from engine.attribution.evaluation.lds import lds
from engine.attribution.scores.factors import combine
from engine.attribution.trak.choose_solver import choose_solver
from engine.attribution.trak.dual import attribute_dual
from engine.attribution.trak.kernel import first_examples
from engine.attribution.trak.primal import gram, primal_projection, test_factors
from engine.attribution.trak.projection import features
from engine.attribution.trak.solver import Solver
from engine.build.solver import AUTO_MEMORY_BYTES
from engine.store.spec import TrakSpec
from engine.training.outputs import evaluate

if TYPE_CHECKING:
    from torch import Tensor, nn

    Method = Callable[[nn.Module, int, np.ndarray], tuple[np.ndarray, float]]
    """(model, number of the checkpoint, its Q) → (scores `[n_test, n_train]`, seconds)."""

THREADS = 2
CHECKPOINTS = {"cnn": (1, 5, 10), "mlp": (1, 5)}
RIVALS_CHECKPOINTS = {"cnn": (1, 5), "mlp": (1,)}
"""Other tools take half a minute or more per checkpoint; on the MLP, one is enough to compare."""


# --- ours ----------------------------------------------------------------------------------------


def default_solver(workload: Workload, spec: TrakSpec) -> Solver:
    """The solver that a build of this workload uses on this machine."""
    n_train, n_test = (len(arrays["label"]) for arrays in (data().train, data().test))
    model, batch = checkpoint(workload, 0), next(batches_of("train", 8)())
    return choose_solver(model, task().model_output, batch, n_train, n_test, spec, memory_bytes())


def memory_bytes() -> int:
    """The value of `trak.memory_gib = "auto"`."""
    return AUTO_MEMORY_BYTES


def attribute(solver: Solver, model: nn.Module, number: int, q: Tensor) -> Tensor:
    """Scores `[n_test, n_train]` of one checkpoint, computed as in a build, before the factor Q."""
    output = task().model_output
    train, test = batches_of("train"), batches_of("test")
    if solver.kind != "primal":
        return attribute_dual(model, output, train, test, solver, number, memory_bytes(), q)
    projection = primal_projection(model, output, first_examples(train), solver, number)
    phi, phi_test = (
        torch.cat(list(features(model, output, batches(), projection))) for batches in (train, test)
    )
    return test_factors(gram([phi], solver, q), phi_test, solver.damping) @ phi.T


# --- scoring -------------------------------------------------------------------------------------


class Mean:
    """τ of the checkpoints added so far: Q̄^power ⊙ mean of the scores."""

    def __init__(self, power: float) -> None:
        self._power = power
        self._n = 0
        self._total: Any = 0
        self._q: Any = 0

    def add(self, scores: np.ndarray, q: np.ndarray) -> np.ndarray:
        """Add one checkpoint's scores `[n_test, n_train]` and Q; return τ of all so far."""
        self._n += 1
        self._total = self._total + scores
        self._q = self._q + q
        return combine(self._total.copy(), self._n, (self._q / self._n) ** self._power)


def out_to_loss(model: nn.Module) -> np.ndarray:
    """Q `[n_train]` of one checkpoint; in a build, the checkpoint stage stores it."""
    return evaluate(task(), model, data().train, ENCODING, 500, "cpu")["out_to_loss"]


def curve(
    workload: Workload,
    counts: Sequence[int],
    method: Method,
    power: float,
    purpose: Purpose = "test",
) -> dict[str, dict[str, float]]:
    """LDS with its interval, and seconds per checkpoint, by number of checkpoints."""
    masks, margins = truth(workload, purpose)
    mean, seconds, found = Mean(power), [], {}
    for number in range(max(counts)):
        model = checkpoint(workload, number)
        q = out_to_loss(model)
        scores, taken = method(model, number, q)
        seconds.append(taken)
        tau = mean.add(scores, q)
        if number + 1 in counts:
            score = lds(tau, masks, margins)
            found[str(number + 1)] = {
                "lds": round(score.mean, 4),
                "low": round(score.low, 4),
                "high": round(score.high, 4),
            }
            log(f"  {number + 1} checkpoints: {score.mean:.3f}")
    for entry in found.values():
        entry["seconds"] = round(statistics.median(seconds), 2)
    return found


def ours(solver: Solver, model: nn.Module, number: int, q: np.ndarray) -> tuple[np.ndarray, float]:
    """Time `attribute`."""
    return _timed(lambda: attribute(solver, model, number, torch.from_numpy(q)))


def theirs(
    name: str, workload: Workload, model: nn.Module, number: int, q: np.ndarray
) -> tuple[np.ndarray, float]:
    """Time another tool, or read its earlier scores and time from `.bench/`."""
    trained = checkpoint_file(workload, number).stem
    path = CACHE / workload.name / name / f"{trained}.safetensors"
    fingerprint = store.fingerprint_of(name, RIVALS[name].settings, trained)
    if not path.exists():
        scores, seconds = _timed(lambda: RIVALS[name].scores(model, number))
        store.write_tensors(path, {"scores": scores}, fingerprint, {"seconds": seconds})
    return store.read_tensors(path, fingerprint)["scores"], store.read_metadata(path)["seconds"]


def _timed(method: Callable[[], Tensor]) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    scores = method()
    return scores.numpy(), time.perf_counter() - start


def measure() -> dict[str, Any]:
    """Every method on the test masks: `{cnn: {1: …}, mlp: …, primal: {cnn: …}, traker: …, …}`."""
    prepare_all()
    torch.set_num_threads(THREADS)
    results: dict[str, Any] = {}
    settings: dict[str, Any] = {name: rival.settings for name, rival in RIVALS.items()}
    for workload in (CNN, MLP):
        counts = CHECKPOINTS[workload.name]
        solvers = {
            "default": default_solver(workload, TrakSpec()),
            "primal": default_solver(workload, TrakSpec(solver="primal")),
        }
        settings[workload.name] = {name: asdict(solver) for name, solver in solvers.items()}
        log(f"{workload.name}: ours, {solvers['default'].kind}")
        results[workload.name] = curve(
            workload, counts, partial(ours, solvers["default"]), solvers["default"].tempering
        )
        log(f"{workload.name}: ours, primal")
        results.setdefault("primal", {})[workload.name] = curve(
            workload, counts, partial(ours, solvers["primal"]), solvers["primal"].tempering
        )
        for name, rival in RIVALS.items():
            log(f"{workload.name}: {name}")
            results.setdefault(name, {})[workload.name] = curve(
                workload,
                RIVALS_CHECKPOINTS[workload.name],
                partial(theirs, name, workload),
                float(rival.times_q),
            )
    return {**results, "settings": settings}


if __name__ == "__main__":
    report("lds", measure, __doc__ or "")
