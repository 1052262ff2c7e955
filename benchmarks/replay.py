"""Does replay tell what removing training examples does, and at what cost?

    DATALOUPE_REPLAY_WORKLOADS=mlp python -m benchmarks.replay --json --save

Workloads, on the first `pictures` training pictures of `benchmarks.workload`, so that each takes
some ten minutes of one core: the MLP (`mlp`) and the CNN of DESIGN section 6 with 8 channels in its
first stage (`cnn`), with their recipes there; and smooth ones of the same sizes, `smooth_mlp` and
`smooth_cnn`, with GELU, average pooling, larger batches and lower rates. One after another may be
run; results of the others are kept in `.bench/replay` and reported, too, each with its device.

Truth is the same seed trained again with weights of 0 for the removed pictures: the order of the
others, and so every batch, stays. What a removal does to the *learning algorithm* is the mean over
`NEW_SEEDS` seeds that no score has seen, each trained in that way.

- `lds.WORKLOAD.FRACTION.METHOD`: LDS over `REMOVALS` random removals of that fraction, on `TESTS`
  test pictures, with 95 % intervals, of `replay`, `trak` (the exact kernel of the same model),
  `hybrid` (with TRAK as its prior, fitted to `RUNS` runs on random halves), and `combined` (the
  hybrid with the fitted sum of replay and TRAK as its prior).
- `lds_of_algorithm.WORKLOAD.FRACTION.METHOD`: the same for the mean over new seeds, of replay and
  TRAK of `MEMBERS` models each.
- `combined_minus_best_parent.WORKLOAD.FRACTION`: of `lds_of_algorithm`.
- `slope_top.WORKLOAD.K`: slope of actual on predicted changes where the K most supporting pictures
  of each of the `TESTS` pictures are removed, uncalibrated.
- `brittle_verified_share`: of the right predictions that replay predicts to turn wrong without 10
  pictures or fewer, those that do, with smooth training (`brittle.WORKLOAD` has the numbers).
- `smoothness.WORKLOAD`: see `engine.attribution.replay.smoothness`; the mean of `DIRECTIONS`.
- `trainings_per_query`: seconds of one core of one walk back, a query, in plain trainings
  (`smooth_mlp`; `trainings_per_query.WORKLOAD` has the others), alone and in a batch of 32, with
  all states in memory; `with_training` adds the training that is walked back through. `peak_mib` is
  the memory of states and derivatives of a batch of 32 within `bound_mib`, for which states are
  computed again.
- `accuracy.WORKLOAD`: on all 1,000 test pictures.
- `oracle_max_rel_error`: against finite differences of 30 steps in float64, the largest over all
  optimizers, norms and augmentations of `tests/attribution/replay`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import lds, workload
from benchmarks._report import device, log, report, versions
from benchmarks.effects import SOLVER
from engine import store
from engine.attribution.datamodels import hybrid
from engine.attribution.datamodels.combined import combine_attributions
from engine.attribution.evaluation.lds import lds as lds_of
from engine.attribution.replay.query import adjoints_of
from engine.attribution.replay.reverse import walk_back
from engine.attribution.replay.smoothness import smoothness
from engine.attribution.replay.states import Recording
from engine.attribution.scores.factors import combine
from engine.models import build_model
from engine.store.spec import AlgorithmSpec
from engine.training.outputs import evaluate, read_batch
from engine.training.stepping import Training
from engine.training.trainer import train
from tests.attribution.replay.test_replay import CASES, STEPS
from tests.attribution.replay.trainings import N_TRAIN, differences, error, recipe, replayed

CODE = 3
REMOVALS = int(os.environ.get("DATALOUPE_REPLAY_REMOVALS", "40"))
TESTS = 32
RUNS, VALIDATION = 80, 20
MEMBERS, NEW_SEEDS = 5, 3
PARENTS = ("replay", "trak")
FRACTIONS = {"1%": 0.01, "5%": 0.05, "20%": 0.2}
TOP = (5, 20)
MOST_REMOVED = 10
DIRECTIONS = 3
SEED = 0
FIRST_NEW_SEED = 100
PLENTY = 2**34
BOUND_MIB = 256
EVERYTHING = workload.data()


@dataclass(frozen=True)
class Algorithm:
    """What is trained.

    Attributes:
        pictures: Training pictures, the first ones.
        smooth: Whether brittle predictions are verified.
    """

    name: str
    recipe: AlgorithmSpec
    pictures: int
    smooth: bool = False


def _changed(recipe: AlgorithmSpec, options: dict[str, Any], **changes: Any) -> AlgorithmSpec:
    return recipe.model_copy(update={"architecture_options": options, **changes})


SMOOTH = {"activation": "gelu", "pooling": "average"}
ALGORITHMS = (
    Algorithm("mlp", workload.MLP.recipe, 2500),
    Algorithm(
        "smooth_mlp",
        _changed(
            workload.MLP.recipe,
            {"activation": "gelu"},
            batch_size=250,
            learning_rate=0.03,
            epochs=20,
        ),
        2500,
        smooth=True,
    ),
    Algorithm("cnn", _changed(workload.CNN.recipe, {"width": 8}), 1000),
    Algorithm(
        "smooth_cnn",
        _changed(
            workload.CNN.recipe,
            {"width": 8, **SMOOTH},
            batch_size=100,
            learning_rate=0.03,
            epochs=12,
        ),
        1000,
        smooth=True,
    ),
)
WORKLOADS = os.environ.get("DATALOUPE_REPLAY_WORKLOADS", "mlp,smooth_mlp,cnn,smooth_cnn").split(",")


def measure() -> dict[str, Any]:
    """All keys of the workloads that are asked for, and of those measured before."""
    torch.set_num_threads(1)
    largest = oracle()
    log(f"oracle {largest:.1e}")
    for algorithm in ALGORITHMS:
        if algorithm.name in WORKLOADS:
            small_data(algorithm.pictures)
            part = {**measure_workload(algorithm), "device": device(), "versions": versions()}
            part_of(algorithm).write_text(json.dumps(part), encoding="utf-8")
    parts = {
        algorithm.name: json.loads(part_of(algorithm).read_text(encoding="utf-8"))
        for algorithm in ALGORITHMS
        if part_of(algorithm).exists()
    }
    found: dict[str, Any] = {"oracle_max_rel_error": largest}
    for key in next(iter(parts.values())):
        found[key if key not in ("device", "versions") else f"{key}_of"] = {
            name: part[key] for name, part in parts.items() if key in part
        }
    brittle = [part["brittle"] for part in parts.values() if "brittle" in part]
    if total := sum(one["claimed"] for one in brittle):
        verified = sum(one["verified"] for one in brittle)
        found["brittle_verified_share"] = round(verified / total, 3)
    if "smooth_mlp" in parts:
        found["trainings_per_query"] |= parts["smooth_mlp"]["trainings_per_query"]
        found["peak_mib"] = parts["smooth_mlp"]["peak_mib"]
    return found


def measure_workload(algorithm: Algorithm) -> dict[str, Any]:
    """What is measured of one workload."""
    name = algorithm.name
    found: dict[str, Any] = {
        "pictures": algorithm.pictures,
        "removals": REMOVALS,
        "accuracy": accuracy(algorithm),
        **costs(algorithm),
    }
    log(f"{name}: accuracy {found['accuracy']}, {found['trainings_per_query']}")
    methods = scores(algorithm, 1)
    log(f"{name}: scores")
    found["lds"] = {
        key: quality(algorithm, fraction, methods, [SEED]) for key, fraction in FRACTIONS.items()
    }
    log(f"{name}: {found['lds']}")
    averaged, new = scores(algorithm, MEMBERS), range(FIRST_NEW_SEED, FIRST_NEW_SEED + NEW_SEEDS)
    found["lds_of_algorithm"] = {
        key: quality(algorithm, fraction, averaged, new) for key, fraction in FRACTIONS.items()
    }
    log(f"{name}: {found['lds_of_algorithm']}")
    found["combined_minus_best_parent"] = {
        key: round(of["combined"]["lds"] - max(of[one]["lds"] for one in PARENTS), 4)
        for key, of in found["lds_of_algorithm"].items()
    }
    found["smoothness"] = mean_smoothness(algorithm)
    found["slope_top"] = {str(k): slope(algorithm, k, methods["replay"]) for k in TOP}
    log(f"{name}: smoothness {found['smoothness']}, slopes {found['slope_top']}")
    if algorithm.smooth:
        found["brittle"] = brittle_sets(algorithm, methods["replay"])
        log(f"{name}: brittle {found['brittle']}")
    return found


# --- what is measured ---------------------------------------------------------------------------


def oracle() -> float:
    """The largest error of all cases of the tests."""
    direction = np.random.default_rng(0).standard_normal((1, N_TRAIN))
    errors = []
    for name, (make, changes) in CASES.items():
        spec = recipe(**changes)
        truth = differences(make, spec, direction, STEPS.get(name, 3e-5))
        errors.append(error(replayed(make, spec) @ direction.T, truth))
    return float(f"{max(errors):.2e}")


def quality(
    algorithm: Algorithm, fraction: float, methods: dict[str, np.ndarray], seeds: Iterable[int]
) -> dict[str, dict[str, float]]:
    """LDS of each method where a random fraction is removed, for the mean over seeds."""
    masks = []
    for number in range(REMOVALS):
        order = np.random.default_rng([16, number, round(1000 * fraction)]).permutation(
            n_pictures()
        )
        masks.append(~np.isin(np.arange(n_pictures()), order[: round(fraction * n_pictures())]))
    of_seeds = [
        np.stack([margins(algorithm, mask.astype(float), seed) for mask in masks]) for seed in seeds
    ]
    outputs = np.mean(of_seeds, axis=0)
    found = {}
    for name, tau in methods.items():
        score = lds_of(tau.astype(np.float64), np.stack(masks), outputs)
        found[name] = {
            key: round(float(value), 4)
            for key, value in (("lds", score.mean), ("low", score.low), ("high", score.high))
        }
    return found


def mean_smoothness(algorithm: Algorithm) -> float:
    """Smoothness on the test pictures, over several sets of training pictures."""

    def outputs(weights: np.ndarray) -> np.ndarray:
        return margins(algorithm, weights)

    found = [smoothness(outputs, n_pictures(), direction) for direction in range(DIRECTIONS)]
    return round(float(np.mean(found)), 3)


def slope(algorithm: Algorithm, k: int, tau: np.ndarray) -> dict[str, float]:
    """Slope of actual on predicted changes without the k most supporting pictures."""
    base = margins(algorithm, np.ones(n_pictures()))
    predicted, actual = [], []
    for test, row in enumerate(tau):
        weights = np.ones(n_pictures())
        top = np.argsort(-row, kind="stable")[:k]
        weights[top] = 0
        predicted.append(-row[top].sum())
        actual.append(margins(algorithm, weights)[test] - base[test])
    x, y = np.array(predicted, float), np.array(actual, float)
    drawn = np.random.default_rng(0).integers(len(x), size=(2000, len(x)))
    slopes = (x[drawn] * y[drawn]).sum(1) / np.square(x[drawn]).sum(1)
    low, high = np.quantile(slopes, (0.025, 0.975))
    return {
        "slope": round(float((x * y).sum() / np.square(x).sum()), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "predicted": round(float(x.mean()), 3),
        "actual": round(float(y.mean()), 3),
    }


def brittle_sets(algorithm: Algorithm, tau: np.ndarray) -> dict[str, int]:
    """Right predictions that are predicted to turn wrong, and how many do."""
    base = margins(algorithm, np.ones(n_pictures()))
    claimed = verified = 0
    for test, row in enumerate(tau):
        top = np.argsort(-row, kind="stable")[:MOST_REMOVED]
        below = base[test] - np.cumsum(row[top]) < 0
        if base[test] <= 0 or not below.any():
            continue
        weights = np.ones(n_pictures())
        weights[top[: int(below.argmax()) + 1]] = 0
        claimed += 1
        verified += int(margins(algorithm, weights)[test] < 0)
    return {"claimed": claimed, "verified": verified}


def costs(algorithm: Algorithm) -> dict[str, Any]:
    """Trainings a query costs, and the memory of a batch of queries within a bound."""
    plain = min(timed(lambda: trained(algorithm, None)) for _ in range(2))
    training = training_of(algorithm)
    with training.running():
        recording = Recording(training, PLENTY)
        recorded = timed(recording.run)
        single = min(timed(lambda: walk(training, recording, 1)) for _ in range(2))
        batch = timed(lambda: walk(training, recording, TESTS))
    training = training_of(algorithm)
    with training.running():
        at_end = training.trained
        each = sum(p.numel() * p.element_size() for p in at_end) * 4
        bounded = Recording(training, BOUND_MIB * 2**20 - TESTS * each)
        bounded.run()
        bounded_batch = timed(lambda: walk(training, bounded, TESTS))
    return {
        "trainings_per_query": {
            "single": round(single / plain, 3),
            "batch32": round(batch / TESTS / plain, 3),
            "batch32_bounded": round(bounded_batch / TESTS / plain, 3),
            "with_training": round((recorded + single) / plain, 3),
        },
        "training_seconds": round(plain, 2),
        "states_mib": round(recording.peak / 2**20, 1),
        "peak_mib": round((bounded.peak + TESTS * each) / 2**20, 1),
        "bound_mib": BOUND_MIB,
    }


def timed(work: Callable[[], object]) -> float:
    """Seconds of one core, which others that use it do not change."""
    start = time.process_time()
    work()
    return time.process_time() - start


# --- scores -------------------------------------------------------------------------------------


def scores(algorithm: Algorithm, members: int) -> dict[str, np.ndarray]:
    """Scores `[TESTS, n_pictures()]` of each method, of so many models from seed `SEED` on."""
    models = [scores_of_model(algorithm, SEED + number) for number in range(members)]
    raw, q, replay = (
        np.sum([one[name] for one in models], axis=0) for name in ("raw", "q", "replay")
    )
    weight = (q / members) ** SOLVER.tempering
    trak = np.asarray(combine(raw, members, weight), np.float32)
    masks = np.stack([half(number) for number in range(RUNS)])
    outputs = np.stack([half_run(algorithm, number) for number in range(RUNS)])
    bank = torch.from_numpy(masks).float(), torch.from_numpy(outputs)
    prior = torch.from_numpy(trak)
    both = combine_attributions([torch.from_numpy(replay / members), prior], *bank)
    return {
        "replay": replay / members,
        "trak": trak,
        "hybrid": fitted(prior, *bank),
        "combined": fitted(both, *bank),
    }


def scores_of_model(algorithm: Algorithm, seed: int) -> dict[str, np.ndarray]:
    """Replay, and what TRAK's mean over models is made of, float32."""
    path = file_of(algorithm, "scores", seed)
    if not path.exists():
        training = training_of(algorithm, seed)
        with training.running():
            recording = Recording(training, PLENTY)
            recording.run()
            replay = walk(training, recording, TESTS)
        model = trained(algorithm, None, seed)
        q = lds.out_to_loss(model)
        raw = lds.attribute(SOLVER, model, seed, torch.from_numpy(q)).numpy()
        found = {"replay": replay, "raw": raw, "q": q}
        found = {name: np.asarray(array, np.float32) for name, array in found.items()}
        store.write_tensors(path, found, path.stem)
    return {name: np.array(array) for name, array in store.read_tensors(path).items()}


def fitted(tau: torch.Tensor, masks: torch.Tensor, outputs: torch.Tensor) -> np.ndarray:
    """Weights of the hybrid, with settings chosen on the last runs and fitted to all."""
    fit, check = slice(RUNS - VALIDATION), slice(RUNS - VALIDATION, None)
    choice = hybrid.choose(tau, masks[fit], outputs[fit], masks[check], outputs[check])
    prior = tau * hybrid.output_units(tau, masks, outputs, choice.settings.ridge)
    return hybrid.fit(prior, masks, outputs, choice.settings).weights.numpy()


def half(number: int) -> np.ndarray:
    """A random half of the training pictures, bool `[n]`."""
    order = np.random.default_rng([17, number]).permutation(n_pictures())
    found: np.ndarray = np.isin(np.arange(n_pictures()), order[: n_pictures() // 2])
    return found


def half_run(algorithm: Algorithm, number: int) -> np.ndarray:
    """Margins of a model with its own seed, trained on a random half."""
    path = file_of(algorithm, "half", number)
    if not path.exists():
        model = train(
            workload.task(),
            fresh(algorithm, 1 + number),
            workload.data().train,
            workload.ENCODING,
            algorithm.recipe,
            1 + number,
            "cpu",
            np.flatnonzero(half(number)),
        )
        store.write_tensors(path, outputs_of(model), path.stem)
    found: np.ndarray = store.read_tensors(path)["margin"]
    return found


def walk(training: Training, recording: Recording, count: int) -> np.ndarray:
    """Replay the first `count` of the test pictures."""
    recording.to_last()
    batch = read_batch(
        workload.task(), workload.data().test, np.arange(count), workload.ENCODING, "cpu"
    )
    adjoints, _ = adjoints_of(training, workload.task().model_output, batch)
    return walk_back(recording, adjoints)


# --- models -------------------------------------------------------------------------------------


def n_pictures() -> int:
    return len(workload.data().train["label"])


def small_data(pictures: int) -> None:
    """Let `benchmarks.workload` have only the first training pictures, and some test pictures."""
    rows = np.random.default_rng(16).permutation(len(EVERYTHING.test["label"]))[:TESTS]
    small = workload.Data(
        {name: array[:pictures] for name, array in EVERYTHING.train.items()},
        {name: array[rows] for name, array in EVERYTHING.test.items()},
        store.fingerprint_of(EVERYTHING.fingerprint, pictures),
    )
    for module in (workload, lds):
        setattr(module, "data", lambda: small)  # noqa: B010  # both look it up at each call


def fresh(algorithm: Algorithm, seed: int = SEED) -> nn.Module:
    recipe = algorithm.recipe
    options = recipe.architecture_options
    return build_model(recipe.architecture, options, workload.ENCODING, workload.N_CLASSES, seed)


def training_of(algorithm: Algorithm, seed: int = SEED) -> Training:
    data, model = workload.data().train, fresh(algorithm, seed)
    return Training(workload.task(), model, data, workload.ENCODING, algorithm.recipe, seed, "cpu")


def trained(algorithm: Algorithm, weights: np.ndarray | None, seed: int = SEED) -> nn.Module:
    """A model trained with these weights of the pictures."""
    return train(
        workload.task(),
        fresh(algorithm, seed),
        workload.data().train,
        workload.ENCODING,
        algorithm.recipe,
        seed,
        "cpu",
        weights=weights,
    )


def margins(algorithm: Algorithm, weights: np.ndarray, seed: int = SEED) -> np.ndarray:
    """Margins of the test pictures after a training with weights, float32 `[n_test]`."""
    path = file_of(algorithm, "margins", store.fingerprint_of(weights.tolist(), seed))
    if not path.exists():
        outputs = outputs_of(trained(algorithm, weights, seed))
        store.write_tensors(path, outputs, path.stem)
    found: np.ndarray = store.read_tensors(path)["margin"]
    return found


def accuracy(algorithm: Algorithm) -> float:
    """Share of the test pictures that the model gets right."""
    model, test = trained(algorithm, None), EVERYTHING.test
    logits = evaluate(workload.task(), model, test, workload.ENCODING, 500, "cpu")["logits"]
    return round(float((logits.argmax(1) == test["label"]).mean()), 4)


def outputs_of(model: nn.Module) -> dict[str, np.ndarray]:
    found = evaluate(workload.task(), model, workload.data().test, workload.ENCODING, 500, "cpu")
    return {"margin": found["output"]}


def file_of(algorithm: Algorithm, what: str, number: object) -> Any:
    fingerprint = store.fingerprint_of(
        "replay",
        CODE,
        workload.data().fingerprint,
        algorithm.name,
        algorithm.recipe.model_dump(exclude_unset=True),
        what,
        number,
        TESTS,
    )
    return workload.CACHE / "replay" / algorithm.name / f"{fingerprint}.safetensors"


def part_of(algorithm: Algorithm) -> Any:
    return workload.CACHE / "replay" / f"{algorithm.name}.json"


if __name__ == "__main__":
    report("replay", measure, __doc__ or "")
