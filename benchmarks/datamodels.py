"""LDS of the hybrid (a datamodel whose prior is TRAK) compared with TRAK and datamodels alone.

    python -m benchmarks.datamodels --json [--save]

The workload is that of DESIGN section 6, evaluated on the 100 test masks. Settings are chosen on
validation masks and everything is fitted to fit masks, with one run per mask. `trak` uses five
checkpoints at default settings, `ridge` is a datamodel with a squared penalty, and `lasso` is the
datamodel of the papers (also refitted to the validation runs that chose its λ).

`budgets` compares methods at equal compute: the hybrid with `BUDGET_CHECKPOINTS` checkpoints and
some runs, TRAK with additional checkpoints at the cost of those runs, and the lasso with additional
runs at the cost of the checkpoints. Costs are the one-thread seconds per run and per checkpoint
measured here. At most `MOST_CHECKPOINTS` are trained; `by_checkpoints` shows how little TRAK gains
from more. `coverage_90` is the share of single test runs inside the hybrid's 90 % intervals.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from benchmarks._report import log, report
from benchmarks.lds import Mean, attribute, default_solver, out_to_loss
from benchmarks.workload import (
    CACHE,
    CNN,
    MLP,
    Model,
    Purpose,
    Workload,
    checkpoint,
    checkpoint_file,
    prepare_all,
    train,
    truth,
)
from engine import store
from engine.attribution.datamodels import hybrid
from engine.attribution.datamodels.fit import fit_datamodels
from engine.attribution.evaluation.calibration import NINETY
from engine.attribution.evaluation.lds import Lds, lds_of_predictions, spearman
from engine.attribution.trak.solver import Solver
from engine.store.spec import TrakSpec

CODE = 2
"""Raised when the same runs would give a different hybrid."""
CHECKPOINTS = 5
BUDGET_CHECKPOINTS = {"mlp": 5, "cnn": 10}
MOST_CHECKPOINTS = {"mlp": 40, "cnn": 40}
RUNS = {"mlp": (200, 1000), "cnn": (200, 300)}
BUDGETS = (50, 100, 200, 300)
"""Runs of the hybrid, in addition to its checkpoints."""
CHOSEN_BY = 128
"""Number of targets used to choose settings, evenly spaced."""


# --- attributions --------------------------------------------------------------------------------


def attributions(workload: Workload, counts: set[int]) -> dict[int, np.ndarray]:
    """τ `[n_test, n_train]` by number of checkpoints; scores are kept in `.bench/`."""
    solver = default_solver(workload, TrakSpec())
    mean, found = Mean(solver.tempering), {}
    for number in range(max(counts)):
        shard = _of_checkpoint(workload, solver, number)
        tau = mean.add(shard["scores"], shard["out_to_loss"])
        if number + 1 in counts:
            found[number + 1] = tau
    return found


def _of_checkpoint(workload: Workload, solver: Solver, number: int) -> dict[str, np.ndarray]:
    trained = checkpoint_file(workload, number).stem
    path = CACHE / workload.name / "trak" / f"{trained}.safetensors"
    fingerprint = store.fingerprint_of("trak", repr(solver), trained)
    if not path.exists():
        model = checkpoint(workload, number)
        q = out_to_loss(model)
        scores = attribute(solver, model, number, torch.from_numpy(q)).numpy()
        store.write_tensors(path, {"scores": scores, "out_to_loss": q}, fingerprint)
    return store.read_tensors(path, fingerprint)


# --- the methods ---------------------------------------------------------------------------------


def single(workload: Workload, purpose: Purpose) -> tuple[np.ndarray, np.ndarray]:
    """Masks and outputs with one run per mask, as in a study."""
    return truth(replace(workload, seeds=1), purpose)


def fit_and_predict(
    workload: Workload, tau: np.ndarray, runs: int
) -> tuple[np.ndarray, hybrid.Settings, float]:
    """(predicted outputs on the test masks, settings, coverage), kept in `.bench/`."""
    fingerprint = store.fingerprint_of(
        "hybrid", CODE, workload.name, runs, float(np.abs(tau).sum())
    )
    path = CACHE / workload.name / "hybrid" / f"{fingerprint}.safetensors"
    if not path.exists():
        predicted, settings, coverage = _fit(workload, tau, runs)
        about = {"settings": asdict(settings), "coverage": coverage}
        store.write_tensors(path, {"predicted": predicted}, fingerprint, about)
    found = store.read_metadata(path)
    settings = hybrid.Settings(**found["settings"])
    return store.read_tensors(path)["predicted"], settings, found["coverage"]


def _fit(
    workload: Workload, tau: np.ndarray, runs: int
) -> tuple[np.ndarray, hybrid.Settings, float]:
    masks, outputs = (array[:runs] for array in single(workload, "fit"))
    validation = single(workload, "validation")
    test_masks, test_outputs = single(workload, "test")
    some = np.linspace(0, len(tau) - 1, CHOSEN_BY).astype(int)
    of = torch.from_numpy
    choice = hybrid.choose(
        of(tau[some]),
        of(masks),
        of(outputs[:, some].copy()),
        of(validation[0]),
        of(validation[1][:, some].copy()),
    )
    settings = choice.settings
    tau_in_units = of(tau) * hybrid.output_units(of(tau), of(masks), of(outputs), settings.ridge)
    found = hybrid.fit(tau_in_units, of(masks), of(outputs), settings, of(test_masks))
    off = (torch.from_numpy(test_outputs.T.copy()) - found.predicted).abs()
    coverage = float((off < NINETY * found.deviation).float().mean())
    return found.predicted.numpy(), settings, coverage


def lasso(workload: Workload, runs: int) -> np.ndarray:
    """Predicted outputs on the test masks; λ is chosen on validation runs, then refitted to all."""
    fitted, validation = single(workload, "fit"), single(workload, "validation")
    masks = np.concatenate([fitted[0][:runs], validation[0]])
    outputs = np.concatenate([fitted[1][:runs], validation[1]])
    held_out = np.arange(len(masks)) >= runs
    return fit_datamodels(masks, outputs, held_out).predict(single(workload, "test")[0]).T


def ridge(workload: Workload, runs: int) -> np.ndarray:
    """Predicted outputs on the test masks; validation runs choose one penalty for all targets."""
    masks, outputs = (array[:runs] for array in single(workload, "fit"))
    validation, (test_masks, _) = single(workload, "validation"), single(workload, "test")
    mean = masks.mean(axis=0)
    x, y = masks - mean, outputs - outputs.mean(axis=0)
    gram = x @ x.T

    def predict(new: np.ndarray, penalty: float) -> np.ndarray:
        level = penalty * np.diagonal(gram).mean()
        alpha = np.linalg.solve(gram + level * np.eye(runs), y)
        outputs: np.ndarray = ((new - mean) @ x.T @ alpha).T
        return outputs

    actual = np.ascontiguousarray(validation[1].T)
    best = max(
        hybrid.NOISES, key=lambda penalty: spearman(predict(validation[0], penalty), actual).mean()
    )
    return predict(test_masks, best)


def evaluate_predictions(workload: Workload, predicted: np.ndarray) -> dict[str, float]:
    """LDS on the test masks, with its interval."""
    found: Lds = lds_of_predictions(predicted, truth(workload, "test")[1].T)
    return {"lds": round(found.mean, 4), "low": round(found.low, 4), "high": round(found.high, 4)}


def compare(workload: Workload, tau: np.ndarray, runs: int) -> dict[str, Any]:
    """All methods with this number of runs."""
    predicted, settings, coverage = fit_and_predict(workload, tau, runs)
    drawn = truth(workload, "test")[0].T.astype(np.float32)
    found = {
        "hybrid": evaluate_predictions(workload, predicted),
        "trak": evaluate_predictions(workload, tau @ drawn),
        "ridge": evaluate_predictions(workload, ridge(workload, runs)),
        "lasso": evaluate_predictions(workload, lasso(workload, runs)),
        "settings": asdict(settings),
        "coverage_90": round(coverage, 4),
    }
    log(f"{workload.name}, {runs} runs: {found}")
    return found


# --- equal compute -------------------------------------------------------------------------------


def seconds(workload: Workload) -> dict[str, float]:
    """One-thread seconds of a subset run, and of a checkpoint trained and attributed."""
    timed = {}
    for name, job in {
        "run": Model(workload, 0, 99),
        "checkpoint": Model(workload, None, 99),
    }.items():
        start = time.process_time()
        train(job)
        timed[name] = time.process_time() - start
    model = checkpoint(workload, 0)
    start = time.process_time()
    q = torch.from_numpy(out_to_loss(model))
    attribute(default_solver(workload, TrakSpec()), model, 0, q)
    timed["checkpoint"] += time.process_time() - start
    return {name: round(value, 2) for name, value in timed.items()}


def at_equal_compute(
    workload: Workload, taus: dict[int, np.ndarray], cost: dict[str, float]
) -> list[dict[str, Any]]:
    """The hybrid compared with TRAK and the lasso, at each budget."""
    drawn = truth(workload, "test")[0].T.astype(np.float32)
    most_runs, own = workload.fit_runs, BUDGET_CHECKPOINTS[workload.name]
    found = []
    for runs in BUDGETS:
        checkpoints = own + round(runs * cost["run"] / cost["checkpoint"])
        more = runs + round(own * cost["checkpoint"] / cost["run"])
        trained = max(count for count in taus if count <= checkpoints)
        entry: dict[str, Any] = {
            "runs": runs,
            "checkpoints": own,
            "hybrid": evaluate_predictions(workload, fit_and_predict(workload, taus[own], runs)[0]),
            "trak": evaluate_predictions(workload, taus[trained] @ drawn),
            "trak_checkpoints_bought": checkpoints,
            "trak_checkpoints_trained": trained,
            "datamodel": evaluate_predictions(workload, lasso(workload, min(more, most_runs))),
            "datamodel_runs_bought": more,
            "datamodel_runs_trained": min(more, most_runs),
        }
        entry["won"] = all(
            entry["hybrid"]["lds"] > entry[parent]["lds"] for parent in ("trak", "datamodel")
        )
        log(f"budget: {entry}")
        found.append(entry)
    return found


def measure() -> dict[str, Any]:
    """LDS of the hybrid by workload and number of runs; all methods, budgets and coverage."""
    prepare_all(("test", "validation", "fit"))
    names = ("methods", "by_checkpoints", "seconds", "budgets", "hybrid_wins")
    results: dict[str, Any] = {name: {} for name in names}
    coverage = []
    for workload in (CNN, MLP):
        most = MOST_CHECKPOINTS[workload.name]
        counts = {count for count in (1, 2, 5, 10, 15, 20, 30, 40) if count <= most}
        taus = attributions(workload, counts)
        methods = {
            str(runs): compare(workload, taus[CHECKPOINTS], runs) for runs in RUNS[workload.name]
        }
        results["methods"][workload.name] = methods
        results[workload.name] = {runs: one["hybrid"]["lds"] for runs, one in methods.items()}
        coverage += [one["coverage_90"] for one in methods.values()]
        drawn = truth(workload, "test")[0].T.astype(np.float32)
        results["by_checkpoints"][workload.name] = {
            str(count): evaluate_predictions(workload, tau @ drawn) for count, tau in taus.items()
        }
        cost = seconds(workload)
        results["seconds"][workload.name] = cost
        budgets = at_equal_compute(workload, taus, cost)
        results["budgets"][workload.name] = budgets
        results["hybrid_wins"][workload.name] = sum(entry["won"] for entry in budgets)
    results["coverage_90"] = [min(coverage), max(coverage)]
    return results


if __name__ == "__main__":
    report("datamodels", measure, __doc__ or "")
