"""Do predicted sizes of removals' effects hold? Part of `benchmarks.judging`.

    python -m benchmarks.effects --json

Three workloads on the first 2,000 + 500 included pictures: a multinomial logistic regression on
pictures of 14 × 14, trained to convergence, so that truth is exact; and the MLP and the CNN of
`benchmarks.workload`. TRAK comes from five checkpoints, its slope from 100 random halves, and the
sizes of effects from `PLANNED` planned removals, as in a build (`engine.build.effects`).

Truth is retraining with five other seeds beside the same seeds with all data (the linear model
needs one). `random` removes k random pictures and looks at all test pictures. `chosen` removes the
k strongest supporters of several test pictures at once and looks at those; `alone` removes those of
one (not for the CNN, whose trainings take too long).

`slope` is that of actual on predicted changes, with a bootstrap interval over removals and seeds,
and `coverage_90` the share of actual changes inside the predicted 90 % intervals, which are widened
by what five seeds leave open. Trained models' outputs are kept in `.bench/effects`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import lds, workload
from benchmarks._report import log, report
from engine import store
from engine.attribution.evaluation.calibration import NINETY, calibrate
from engine.attribution.evaluation.effect_sizes import EffectSizes, moderated_variance
from engine.attribution.evaluation.effects import Units, changes
from engine.attribution.evaluation.quality import Measured
from engine.attribution.evaluation.removal_plan import plan_removal
from engine.attribution.scores.dense import DenseScores
from engine.attribution.trak.solver import Solver
from engine.build.effects import fit_effects
from engine.study.removal_runs import RemovalRun
from engine.training import trainer
from engine.training.outputs import evaluate

CODE = 1
N_TRAIN, N_TEST = 2000, 500
HALVES, PLANNED, CHECKPOINTS = 100, 32, 5
ALPHA = 0.5
KS = (1, 5, 20, 50)
RANDOM_SETS = 8
CHOSEN_SETS = {1: (4, 40), 5: (6, 16), 20: (8, 5), 50: (10, 2)}
"""k → number of removals, and of test pictures of each."""
ALONE = {"linear": 60, "mlp": 24}
DECAY = 1e-2
SOLVER = Solver("dual-exact", 0, 0, 1.5, "benchmark", 0.5, "gauss-newton")
NETWORKS = {"mlp": workload.MLP, "cnn": workload.CNN}


@dataclass(frozen=True)
class Truth:
    """What one removal did.

    Attributes:
        removed: Training rows.
        tests: Test rows that are looked at.
        changes: `[seeds, tests]`.
    """

    removed: np.ndarray
    tests: np.ndarray
    changes: np.ndarray


def measure() -> dict[str, Any]:
    """`effect_slope` and `effect_coverage_90` of every workload, kind and k, and the sizes."""
    found: dict[str, Any] = {"effect_slope": {}, "effect_coverage_90": {}, "effect_sizes": {}}
    for name in ("linear", "mlp", "cnn"):
        slope, coverage, sizes = measure_workload(name)
        found["effect_slope"][name] = slope
        found["effect_coverage_90"][name] = coverage
        found["effect_sizes"][name] = {
            "ordinary": round(sizes.ordinary, 3),
            "chosen": round(sizes.chosen, 3),
            "growth": round(sizes.growth, 3),
            "score_error": round(sizes.score_error, 3),
            "chosen_error": round(sizes.chosen_error, 3),
        }
    return found


def measure_workload(name: str) -> tuple[dict[str, Any], dict[str, Any], EffectSizes]:
    """Slopes and coverages by kind and k, and the fitted sizes."""
    small_data()
    tau, noise = attributions(name), moderated_variance(base(name, 2 * CHECKPOINTS))
    halves = [half(number) for number in range(HALVES)]
    outputs = np.stack([output(name, 1000 + n, keep) for n, keep in enumerate(halves)])
    log(f"{name}: halves")
    masks = np.stack(halves).astype(np.float32)
    calibration = calibrate(tau @ masks.T, np.ascontiguousarray(outputs.T))
    assert calibration is not None
    units = fitted(name, tau, calibration.slope, masks, outputs)
    log(f"{name}: {units.sizes}")
    slopes: dict[str, Any] = {}
    coverages: dict[str, Any] = {}
    for kind, truths in (
        ("random", random_truth),
        ("chosen", chosen_truth),
        ("alone", alone_truth),
    ):
        if kind == "alone" and name not in ALONE:
            continue
        for k in KS:
            slope, coverage = judge(truths(name, k, tau), tau, noise, units)
            slopes.setdefault(kind, {})[str(k)] = slope
            coverages.setdefault(kind, {})[str(k)] = coverage
            log(f"{name} {kind} {k}: slope {slope}, coverage {coverage}")
    return slopes, coverages, units.sizes


def fitted(
    name: str, tau: np.ndarray, slope: float, masks: np.ndarray, outputs: np.ndarray
) -> Units:
    """The units that a build with planned removals gives these scores."""
    full = base(name, CHECKPOINTS)
    noise = moderated_variance(full)
    residuals = (outputs.T - slope * tau.astype(np.float64) @ masks.T).var(axis=1, ddof=1)
    supporters = np.argsort(-tau, axis=1, kind="stable")[:, :100]
    runs = []
    for number in range(PLANNED):
        plan = plan_removal(supporters, workload.data().train["label"], 0, number)
        seed = number % CHECKPOINTS
        change = output(name, seed, without(plan.rows)) - full[seed]
        runs.append(RemovalRun(plan.rows, plan.targets, change))
    sizes, mean_square = fit_effects(
        DenseScores([tau]), slope, ALPHA, residuals, noise, noise, runs
    )
    return Units(Measured(slope, slope, slope), sizes, mean_square, N_TRAIN, ALPHA)


def judge(
    truths: Sequence[Truth], tau: np.ndarray, noise: np.ndarray, units: Units
) -> tuple[dict[str, float], float]:
    """Slope of actual on predicted changes, and the coverage of 90 % intervals.

    Args:
        noise: Variance of each output over seeds, `[n_test]`.
    """
    seeds = len(truths[0].changes)
    left_open = np.zeros(N_TEST)
    if seeds > 1:
        of_seeds = sum(float(one.changes.var(axis=0, ddof=1).sum()) for one in truths)
        left_open = noise * of_seeds / sum(float(noise[one.tests].sum()) for one in truths) / seeds
    products, below, inside = [], [], []
    for one in truths:
        scores, count = tau[one.tests][:, one.removed].astype(np.float64), len(one.removed)
        squares = np.square(scores).sum(axis=1)
        found = changes(scores.sum(axis=1), squares, count, units, one.tests)
        predicted, actual = found.change, one.changes.mean(axis=0)
        products.append(one.changes @ predicted)
        below.append(float(predicted @ predicted))
        variance = found.variance + left_open[one.tests]
        inside += (np.square(actual - predicted) < NINETY**2 * variance).tolist()
    of_each, of_all = np.array(products), np.array(below)
    generator = np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        rows = generator.integers(len(truths), size=len(truths))
        some_seeds = generator.integers(seeds, size=seeds)
        drawn.append(of_each[rows][:, some_seeds].mean(axis=1).sum() / of_all[rows].sum())
    low, high = np.quantile(drawn, (0.025, 0.975))
    slope = {"mean": of_each.mean(axis=1).sum() / of_all.sum(), "low": low, "high": high}
    rounded = {key: round(float(value), 3) for key, value in slope.items()}
    return rounded, round(float(np.mean(inside)), 3)


# --- truth ---------------------------------------------------------------------------------------


def random_truth(name: str, k: int, tau: np.ndarray) -> list[Truth]:
    sets = 40 if name == "linear" else RANDOM_SETS
    rows = [np.random.default_rng([8, k, r]).permutation(N_TRAIN)[:k] for r in range(sets)]
    return [retrained(name, np.sort(one), np.arange(N_TEST)) for one in rows]


def chosen_truth(name: str, k: int, tau: np.ndarray) -> list[Truth]:
    order, (sets, targets) = np.argsort(-tau, axis=1), CHOSEN_SETS[k]
    found = []
    for number in range(sets):
        tests = np.random.default_rng([7, k, number]).permutation(N_TEST)[:targets]
        found.append(retrained(name, np.unique(order[tests, :k]), tests))
    return found


def alone_truth(name: str, k: int, tau: np.ndarray) -> list[Truth]:
    order = np.argsort(-tau, axis=1)
    tests = np.random.default_rng([21, k]).permutation(N_TEST)[: ALONE[name]]
    return [retrained(name, np.sort(order[test, :k]), np.array([test])) for test in tests]


def retrained(name: str, removed: np.ndarray, tests: np.ndarray) -> Truth:
    full = base(name, 2 * CHECKPOINTS)
    seeds = [0] if name == "linear" else range(CHECKPOINTS, 2 * CHECKPOINTS)
    changes = [output(name, seed, without(removed)) - full[seed] for seed in seeds]
    return Truth(removed, tests, np.stack(changes)[:, tests].astype(np.float64))


def without(removed: np.ndarray) -> np.ndarray:
    keep = np.ones(N_TRAIN, bool)
    keep[removed] = False
    return keep


def half(number: int) -> np.ndarray:
    keep = np.zeros(N_TRAIN, bool)
    keep[np.random.default_rng([5, number]).permutation(N_TRAIN)[: N_TRAIN // 2]] = True
    return keep


# --- models --------------------------------------------------------------------------------------


def small_data() -> None:
    """Let `benchmarks.workload` have only the first pictures."""
    everything = workload.data()
    if len(everything.train["label"]) == N_TRAIN:
        return
    train, test = (
        {name: array[:count] for name, array in arrays.items()}
        for arrays, count in ((everything.train, N_TRAIN), (everything.test, N_TEST))
    )
    small = workload.Data(train, test, store.fingerprint_of(everything.fingerprint, N_TRAIN))

    def data() -> workload.Data:
        return small

    for module in (workload, lds):
        setattr(module, "data", data)  # noqa: B010  # both look it up at each call


def base(name: str, seeds: int) -> np.ndarray:
    """Outputs of models trained on everything, `[seeds, n_test]`."""
    keep = np.ones(N_TRAIN, bool)
    return np.stack([output(name, 0 if name == "linear" else s, keep) for s in range(seeds)])


def output(name: str, seed: int, keep: np.ndarray) -> np.ndarray:
    """Margins of the test pictures, float32 `[n_test]`, from the models of `.bench/effects`."""
    path = file_of(name, seed, keep)
    if not path.exists():
        model = trained(name, seed, keep)
        margins = evaluate(
            workload.task(), model, workload.data().test, workload.ENCODING, 500, "cpu"
        )
        store.write_tensors(path, {"margin": margins["output"]}, path.stem)
    margin: np.ndarray = store.read_tensors(path)["margin"]
    return margin


def file_of(name: str, seed: int, keep: np.ndarray) -> Any:
    fingerprint = store.fingerprint_of("effects", CODE, name, seed, np.packbits(keep).tolist())
    return workload.CACHE / "effects" / name / f"{fingerprint}.safetensors"


def trained(name: str, seed: int, keep: np.ndarray) -> nn.Module:
    if name == "linear":
        return logistic_regression(keep)
    network = NETWORKS[name]
    return trainer.train(
        workload.task(),
        workload.untrained(network, seed),
        workload.data().train,
        workload.ENCODING,
        network.recipe,
        seed,
        "cpu",
        np.flatnonzero(keep),
    )


def logistic_regression(keep: np.ndarray) -> nn.Module:
    """A multinomial logistic regression, fitted by L-BFGS until its gradient is below 1e-6."""
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(196, workload.N_CLASSES))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    pictures = torch.from_numpy(workload.data().train["input"][keep].astype(np.float32) / 255)
    pictures = (pictures - workload.ENCODING["mean"][0]) / workload.ENCODING["std"][0]  # type: ignore[index]
    labels = torch.from_numpy(workload.data().train["label"][keep])
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=1000,
        history_size=20,
        tolerance_grad=1e-6,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        decay = sum(parameter.square().sum() for parameter in model.parameters())
        value = nn.functional.cross_entropy(model(pictures), labels) + DECAY / 2 * decay
        value.backward()
        return value

    step: Callable[[Callable[[], torch.Tensor]], object] = optimizer.step
    step(loss)
    return model.eval()


def attributions(name: str) -> np.ndarray:
    """TRAK's scores from five checkpoints (one for the linear model), `[n_test, n_train]`."""
    path = workload.CACHE / "effects" / f"{name}-trak.safetensors"
    if not path.exists():
        mean, tau = lds.Mean(SOLVER.tempering), np.empty(0)
        solver = SOLVER
        for seed in range(1 if name == "linear" else CHECKPOINTS):
            model = trained(name, seed, np.ones(N_TRAIN, bool))
            if name == "cnn":
                solver = replace(SOLVER, kind="dual-wide", width=32_768, proj_dim=32_768)
            q = lds.out_to_loss(model)
            scores = lds.attribute(solver, model, seed, torch.from_numpy(q)).numpy()
            tau = mean.add(scores, q)
            log(f"{name}: attributed checkpoint {seed}")
        store.write_tensors(path, {"tau": np.asarray(tau, np.float32)}, str(CODE))
    found: np.ndarray = store.read_tensors(path)["tau"]
    return found


if __name__ == "__main__":
    report("effects", measure, __doc__ or "")
