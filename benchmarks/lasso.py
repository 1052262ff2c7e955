"""Datamodels of 1,000 targets, compared with scikit-learn's lasso, target by target.

    python -m benchmarks.lasso --json [--save]

The problem has 2,000 subset runs of 5,000 training examples, 400 of them held out. Outputs are
synthetic: 100 nonzero weights per target, and noise of the same variance. Both methods go down the
same 20 λ from λ_max to a tenth of it, take the λ with the smallest error on the held-out runs, and
refit on all runs. scikit-learn uses its default tolerance and one thread, the most that its lasso
supports. Its time for all targets is that of 20 random targets, four after each of our rounds,
times 50. The ratio is reported for ours on all cores and on one core. Weights are compared at our λ
with scikit-learn's at a tolerance of 1e-9.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import Lasso, lasso_path

from benchmarks._report import log, report
from engine.attribution.datamodels.fit import Datamodels, fit_datamodels
from engine.attribution.datamodels.lasso import standardize

N_TRAIN, RUNS, HELD_OUT, TARGETS, LAMBDAS = 5_000, 2_000, 400, 1_000, 20
NONZEROS, NOISE = 100, 1.0
RATIO = 0.1
ROUNDS, PER_ROUND = 5, 4
CORES = len(os.sched_getaffinity(0))


def planted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(masks `[m, n]`, outputs `[m, t]` with variance 1, which runs are held out `[m]`)."""
    rng = np.random.default_rng(0)
    masks = np.zeros((RUNS, N_TRAIN), dtype=bool)
    for row in masks:
        row[rng.permutation(N_TRAIN)[: N_TRAIN // 2]] = True
    weights = np.zeros((TARGETS, N_TRAIN), np.float32)
    for row in weights:
        row[rng.choice(N_TRAIN, NONZEROS, replace=False)] = rng.laplace(size=NONZEROS)
    outputs = masks.astype(np.float32) @ weights.T
    outputs += NOISE * outputs.std(0) * rng.normal(size=outputs.shape)
    return masks, (outputs / outputs.std(0)).astype(np.float32), np.arange(RUNS) >= RUNS - HELD_OUT


def ours(masks: np.ndarray, outputs: np.ndarray, held_out: np.ndarray, threads: int) -> Datamodels:
    """Fit the full path, without stopping early on the held-out error."""
    return fit_datamodels(
        masks,
        outputs,
        held_out,
        lambdas=LAMBDAS,
        lambda_min_ratio=RATIO,
        patience=None,
        threads=threads,
    )


class ScikitLearn:
    """The same, one target at a time. Masks are standardized once, outside of the timing."""

    def __init__(self, masks: np.ndarray, held_out: np.ndarray) -> None:
        part, mean, scale = standardize(masks[~held_out])
        self._held_out = held_out
        self._part = np.asfortranarray(part.T, dtype=np.float64)
        self._checked = (masks[held_out] - mean) * scale
        everything, _, self.scale = standardize(masks)
        self._all = np.asfortranarray(everything.T, dtype=np.float64)

    def fit(self, output: np.ndarray) -> np.ndarray:
        """Weights `[n]` of one target, in units of the raw masks."""
        y = output.astype(np.float64)
        fitted, checked = y[~self._held_out], y[self._held_out]
        mean = fitted.mean()
        largest = np.abs(self._part.T @ (fitted - mean)).max() / len(fitted)
        alphas, weights, _ = lasso_path(
            self._part, fitted - mean, alphas=largest * np.geomspace(1, RATIO, LAMBDAS)
        )
        errors = ((self._checked @ weights + mean - checked[:, None]) ** 2).mean(0)
        return self.at(y, alphas[errors.argmin()], tol=1e-4)

    def at(self, output: np.ndarray, penalty: float, tol: float) -> np.ndarray:
        """Weights at one λ, fitted to all runs."""
        model = Lasso(alpha=penalty, tol=tol, max_iter=100_000)
        weights: np.ndarray = model.fit(self._all, output.astype(np.float64)).coef_ * self.scale
        return weights


def memory() -> dict[str, float]:
    """MiB before a fit and at its peak; runs in a separate process."""
    world = planted()
    before = _peak_mib()
    ours(*world, threads=CORES)
    return {"before": round(before), "peak": round(_peak_mib())}


def _peak_mib() -> float:
    # Not `ru_maxrss`: it starts at the value of the parent process.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure() -> dict[str, Any]:
    """Seconds of both, their ratio, the largest difference of weights, and our peak memory."""
    masks, outputs, held_out = planted()
    log("compiling")
    start = time.perf_counter()
    ours(masks[:, :50], outputs[:, :2], held_out, 1)
    compiling = time.perf_counter() - start
    rival = ScikitLearn(masks, held_out)
    sample = np.random.default_rng(1).choice(TARGETS, ROUNDS * PER_ROUND, replace=False)
    seconds: dict[str, list[float]] = {"ours": [], "ours_one_thread": [], "scikit-learn": []}
    for number in range(ROUNDS):
        for name, threads in (("ours", CORES), ("ours_one_thread", 1)):
            start = time.perf_counter()
            found = ours(masks, outputs, held_out, threads)
            seconds[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        for target in sample[number * PER_ROUND :][:PER_ROUND]:
            rival.fit(outputs[:, target])
        seconds["scikit-learn"].append((time.perf_counter() - start) / PER_ROUND * TARGETS)
        log(", ".join(f"{name} {taken[-1]:.1f} s" for name, taken in seconds.items()))
    differences, largest = [], []
    for target in sample:
        weights = found.rows(np.array([target]))[0]
        wanted = rival.at(outputs[:, target], float(found.penalty[target]), tol=1e-9)
        differences.append(np.abs(weights - wanted).max())
        largest.append(np.abs(wanted).max())
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    child = "import json, benchmarks.lasso as b; print(json.dumps(b.memory()))"
    run = subprocess.run([sys.executable, "-c", child], check=True, capture_output=True, text=True)
    return {
        "ratio_vs_sklearn": round(median["scikit-learn"] / median["ours"], 1),
        "ratio_one_thread": round(median["scikit-learn"] / median["ours_one_thread"], 1),
        "seconds": {name: round(taken, 2) for name, taken in median.items()},
        "rounds": {name: [round(one, 2) for one in taken] for name, taken in seconds.items()},
        "seconds_compiling": round(compiling, 2),
        "sklearn_targets_timed": len(sample),
        "max_weight_difference": float(f"{max(differences):.2g}"),
        "largest_weight": round(float(max(largest)), 4),
        "nonzeros": {
            "median": int(np.median(found.nonzeros)),
            "max": int(found.nonzeros.max()),
        },
        "held_out_r2": round(float(found.r2.mean()), 3),
        "lambda_at_end": int((found.penalty <= found.penalty_max * RATIO * 1.001).sum()),
        "memory_mib": json.loads(run.stdout),
        "problem": {
            "n_train": N_TRAIN,
            "runs": RUNS,
            "held_out": HELD_OUT,
            "targets": TARGETS,
            "lambdas": LAMBDAS,
            "lambda_min_ratio": RATIO,
            "threads": CORES,
        },
    }


if __name__ == "__main__":
    report("lasso", measure, __doc__ or "")
