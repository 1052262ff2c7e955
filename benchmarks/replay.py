"""Does replay tell what removing training examples does, and at what cost?

    python -m benchmarks.replay --json [--save]

Workloads: the MLP of `benchmarks.workload` (`mlp`), and `smooth_mlp`, the same with GELU, batches
of 500, a rate of .03 and 20 epochs. Truth is the same seed trained again with weights of 0 for the
removed pictures: the order of the others, and so every batch, stays.

- `lds.WORKLOAD.FRACTION.METHOD`: LDS over `REMOVALS` random removals of that fraction, on `TESTS`
  test pictures, of `replay` and of `trak` (the exact kernel of the same model), with 95 %
  intervals.
- `slope_top.WORKLOAD.K`: slope of actual on predicted changes where the K most supporting pictures
  of each of the `TESTS` pictures are removed, uncalibrated.
- `smoothness.WORKLOAD`: see `engine.attribution.replay.smoothness`; the mean of `DIRECTIONS`.
- `trainings_per_query`: seconds of one core of one walk back, a query, in plain trainings
  (`smooth_mlp`), alone and in a batch of 32, with all states in memory; `with_training` adds the
  training that is walked back through. `peak_mib` is the memory of states and derivatives of a
  batch of 32 within `bound_mib`, for which states are computed again.
- `oracle_max_rel_error`: against finite differences of 30 steps in float64, the largest over all
  optimizers, norms and augmentations of `tests/attribution/replay`.

`DATALOUPE_REPLAY_PICTURES=N` takes the first N training pictures only, `DATALOUPE_REPLAY_REMOVALS`
another number of removals. Trained models' outputs are kept in `.bench/replay`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import lds, workload
from benchmarks._report import log, report
from benchmarks.effects import SOLVER
from engine import store
from engine.attribution.evaluation.lds import lds as lds_of
from engine.attribution.replay.query import adjoints_of
from engine.attribution.replay.reverse import walk_back
from engine.attribution.replay.smoothness import smoothness
from engine.attribution.replay.states import Recording
from engine.attribution.scores.factors import combine
from engine.store.spec import AlgorithmSpec
from engine.training.outputs import evaluate, read_batch
from engine.training.stepping import Training
from engine.training.trainer import train
from tests.attribution.replay.test_replay import CASES, STEPS
from tests.attribution.replay.trainings import N_TRAIN, differences, error, recipe, replayed

CODE = 1
PICTURES = int(os.environ.get("DATALOUPE_REPLAY_PICTURES", "5000"))
REMOVALS = int(os.environ.get("DATALOUPE_REPLAY_REMOVALS", "40"))
TESTS = 32
FRACTIONS = {"1%": 0.01, "5%": 0.05, "20%": 0.2}
TOP = (5, 20)
DIRECTIONS = 3
SEED = 0
PLENTY = 2**34
BOUND_MIB = 256


@dataclass(frozen=True)
class Algorithm:
    """What is trained."""

    name: str
    activation: type[nn.Module]
    recipe: AlgorithmSpec


ALGORITHMS = (
    Algorithm("mlp", nn.ReLU, workload.MLP.recipe),
    Algorithm(
        "smooth_mlp",
        nn.GELU,
        workload.MLP.recipe.model_copy(
            update={"batch_size": 500, "learning_rate": 0.03, "epochs": 20}
        ),
    ),
)


def measure() -> dict[str, Any]:
    """All keys."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {
        "pictures": PICTURES,
        "removals": REMOVALS,
        "tests": TESTS,
        "oracle_max_rel_error": oracle(),
        "lds": {},
        "slope_top": {},
        "smoothness": {},
        "accuracy": {},
    }
    log(f"oracle {found['oracle_max_rel_error']:.1e}")
    found |= costs(ALGORITHMS[-1])
    log(f"costs {found['trainings_per_query']}")
    for algorithm in ALGORITHMS:
        name, methods = algorithm.name, scores(algorithm)
        found["accuracy"][name] = accuracy(algorithm)
        found["lds"][name] = {key: quality(algorithm, f, methods) for key, f in FRACTIONS.items()}
        log(f"{name}: {found['lds'][name]}")
        found["smoothness"][name] = mean_smoothness(algorithm)
        log(f"{name}: smoothness {found['smoothness'][name]}")
        found["slope_top"][name] = {str(k): slope(algorithm, k, methods["replay"]) for k in TOP}
        log(f"{name}: slopes {found['slope_top'][name]}")
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
    algorithm: Algorithm, fraction: float, methods: dict[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """LDS of each method where a random fraction is removed."""
    masks = []
    for number in range(REMOVALS):
        order = np.random.default_rng([16, number, round(1000 * fraction)]).permutation(PICTURES)
        masks.append(~np.isin(np.arange(PICTURES), order[: round(fraction * PICTURES)]))
    outputs = np.stack([margins(algorithm, mask.astype(float))[tests()] for mask in masks])
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
        some: np.ndarray = margins(algorithm, weights)[tests()]
        return some

    found = [smoothness(outputs, PICTURES, direction) for direction in range(DIRECTIONS)]
    return round(float(np.mean(found)), 3)


def slope(algorithm: Algorithm, k: int, tau: np.ndarray) -> dict[str, float]:
    """Slope of actual on predicted changes without the k most supporting pictures."""
    base = margins(algorithm, np.ones(PICTURES))
    predicted, actual = [], []
    for test, row in zip(tests(), tau, strict=True):
        weights = np.ones(PICTURES)
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


def scores(algorithm: Algorithm) -> dict[str, np.ndarray]:
    """Scores `[TESTS, PICTURES]` of each method, of the model of seed `SEED`."""
    path = file_of(algorithm, "scores", 0)
    if not path.exists():
        training = training_of(algorithm)
        with training.running():
            recording = Recording(training, PLENTY)
            recording.run()
            replay = walk(training, recording, TESTS)
        model = trained(algorithm, None)
        q = lds.out_to_loss(model)
        raw = lds.attribute(SOLVER, model, SEED, torch.from_numpy(q)).numpy()
        trak = combine(raw, 1, q**SOLVER.tempering)[tests()]
        found = {"replay": replay.astype(np.float32), "trak": np.asarray(trak, np.float32)}
        store.write_tensors(path, found, path.stem)
    return store.read_tensors(path)


def walk(training: Training, recording: Recording, count: int) -> np.ndarray:
    """Replay the first `count` of the test pictures."""
    recording.to_last()
    batch = read_batch(
        workload.task(), workload.data().test, tests()[:count], workload.ENCODING, "cpu"
    )
    adjoints, _ = adjoints_of(training, workload.task().model_output, batch)
    return walk_back(recording, adjoints)


# --- models -------------------------------------------------------------------------------------


def tests() -> np.ndarray:
    """Rows of the test pictures that are looked at."""
    rows: np.ndarray = np.random.default_rng(16).permutation(1000)[:TESTS]
    return rows


def small_data() -> None:
    """Let `benchmarks.workload` have only the first training pictures."""
    everything = workload.data()
    train_part = {name: array[:PICTURES] for name, array in everything.train.items()}
    fingerprint = store.fingerprint_of(everything.fingerprint, PICTURES)
    small = workload.Data(train_part, everything.test, fingerprint)
    for module in (workload, lds):
        setattr(module, "data", lambda: small)  # noqa: B010  # both look it up at each call


def fresh(algorithm: Algorithm) -> nn.Module:
    """784-256-128-10 with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        inside = algorithm.activation
        return nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(784, 256), inside()),
            *(nn.Linear(256, 128), inside()),
            nn.Linear(128, workload.N_CLASSES),
        )


def training_of(algorithm: Algorithm) -> Training:
    data = workload.data().train
    model = fresh(algorithm)
    return Training(workload.task(), model, data, workload.ENCODING, algorithm.recipe, SEED, "cpu")


def trained(algorithm: Algorithm, weights: np.ndarray | None) -> nn.Module:
    """The model of seed `SEED`, trained with these weights of the pictures."""
    return train(
        workload.task(),
        fresh(algorithm),
        workload.data().train,
        workload.ENCODING,
        algorithm.recipe,
        SEED,
        "cpu",
        weights=weights,
    )


def margins(algorithm: Algorithm, weights: np.ndarray) -> np.ndarray:
    """Margins of all test pictures after a training with weights, float32 `[n_test]`."""
    path = file_of(algorithm, "margins", store.fingerprint_of(weights.tolist()))
    if not path.exists():
        outputs = outputs_of(trained(algorithm, weights))
        store.write_tensors(path, outputs, path.stem)
    found: np.ndarray = store.read_tensors(path)["margin"]
    return found


def accuracy(algorithm: Algorithm) -> float:
    """Share of the test pictures that the model gets right."""
    logits = outputs_of(trained(algorithm, None))["logits"]
    return round(float((logits.argmax(1) == workload.data().test["label"]).mean()), 4)


def outputs_of(model: nn.Module) -> dict[str, np.ndarray]:
    found = evaluate(workload.task(), model, workload.data().test, workload.ENCODING, 500, "cpu")
    return {"margin": found["output"], "logits": found["logits"]}


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


if __name__ == "__main__":
    small_data()
    report("replay", measure, __doc__ or "")
