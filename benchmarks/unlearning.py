"""How close are unlearned models to models that never saw the forget set, and at what cost?

    python -m benchmarks.unlearning --json [--save]

The study uses the MLP of `benchmarks.workload` on the included 5,000 + 1,000 pictures, with 5
checkpoints and 60 subset runs that keep class logits. Forget sets have `SIZES` training examples:
random ones, and those with the largest entries in the first principal direction of the
attributions. `MODELS` original models unlearn by every method, within `BUDGET` of a retraining, and
are compared with `MODELS` oracles. Each method's hyper-parameters are chosen by forgetting other,
most similar examples.

For each set, `unlearning_share_of_way` is how far matching gets within `BUDGET` from doing nothing
(0) to the floor between oracles (1), by KLoM on the forget set with half of the models, and
`share_of_way_curve` the same by budget, with the settings chosen at `BUDGET`, for `CURVE_SETS`.
`matching_vs_floor_forget` is the KLoM on the forget set divided by the KLoM between
oracles, both with half of the models. `matching_cost_share` is the cost per model as a share of a
retraining, and `matching_once_share` the one-time cost of predicting the changes. The table has the
mean and 95th percentile with intervals; `predicted` states how well the changes of the logits were
predicted. Everything trained is kept in the study, so an interrupted run continues.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks._report import log, report
from benchmarks._study import built
from benchmarks.workload import MLP
from engine.api import Study
from engine.applications.unlearning.audit import audit
from engine.applications.unlearning.audit_record import PARTS, Audit
from engine.applications.unlearning.klom import Klom
from engine.applications.unlearning.settings import BUDGET, GRIDS, Hyper
from engine.applications.unlearning.sources import Source
from engine.store.layout import TRAK
from engine.study.score_matrices import read_score_matrix

SIZES = (10, 50, 250)
MODELS = 50
CURVE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
"""Budgets, as shares of a retraining."""
CURVE_SETS = ("random 250", "direction 250")
SOURCE: Source = "hybrid"
"""What the changes that matching learns are predicted by."""
SPEC = f"""\
name = "Unlearning"
[data]
source = "fashion-mnist"
[task]
mean = 0.286
std = 0.353
[algorithms.mlp]
architecture = "mlp"
checkpoints = 5
epochs = {MLP.recipe.epochs}
batch_size = {MLP.recipe.batch_size}
learning_rate = {MLP.recipe.learning_rate}
momentum = {MLP.recipe.momentum}
weight_decay = {MLP.recipe.weight_decay}
warmup = {MLP.recipe.warmup}
[trak]
damping = 1.5
tempering = 0.5
soft_threshold = 0
[subset_runs]
masks = 60
logits = true
"""


def measure() -> dict[str, Any]:
    return measured(built("unlearning", SPEC), MODELS, SIZES, SOURCE)


def measured(
    study: Study,
    models: int,
    sizes: tuple[int, ...],
    source: Source | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Results for any study."""
    sets = {
        f"{kind} {size}": rows[:size]
        for size in sizes
        for kind, rows in (("random", random_rows(study)), ("direction", direction_rows(study)))
    }
    audits = {}
    for name, rows in sets.items():
        log(f"forgetting {name}")
        audits[name] = audit(
            study,
            rows.tolist(),
            methods=list(GRIDS),
            models=models,
            source=source,
            workers=workers,
            report=log_progress,
        )
    matching = {name: found.of("matching") for name, found in audits.items()}
    curves = {
        name: {
            f"{budget:g}": share_of_way(
                audit(
                    study,
                    sets[name].tolist(),
                    methods=["matching"],
                    models=models,
                    budget=budget,
                    source=source,
                    hyper={"matching": Hyper.from_dict(matching[name].hyper)},
                    workers=workers,
                    report=log_progress,
                )
            )
            for budget in CURVE
        }
        for name in CURVE_SETS
        if name in sets
    }
    return {
        "unlearning_share_of_way": {name: share_of_way(found) for name, found in audits.items()},
        "share_of_way_curve": curves,
        "matching_vs_floor_forget": {
            name: round(one.forget.at_half.mean.mean / audits[name].floor["forget"].mean.mean, 2)
            for name, one in matching.items()
        },
        "matching_cost_share": round(max(one.cost_share for one in matching.values()), 4),
        "matching_once_share": round(max(one.once_share for one in matching.values()), 4),
        "models": models,
        "budget": BUDGET,
        "source": next(iter(audits.values())).source,
        "direction": next(iter(audits.values())).direction,
        "ceiling": round(next(iter(audits.values())).ceiling, 2),
        "table": {name: rows_of_table(found) for name, found in audits.items()},
        "predicted": {
            name: {"correlation": _rounded(one.correlation), "error": _rounded(one.error)}
            for name, one in audits.items()
        },
    }


def share_of_way(found: Audit) -> dict[str, float] | None:
    """Of matching, with its interval; None where there is no way to go."""
    share = found.of("matching").share_of_way
    return None if share is None else {k: round(v, 3) for k, v in asdict(share).items()}


def random_rows(study: Study) -> np.ndarray:
    """Training rows in a fixed random order."""
    return np.argsort(np.random.PCG64(7).random_raw(study.dataset.n_train), kind="stable")


def direction_rows(study: Study) -> np.ndarray:
    """Training rows, sorted from farthest along the first principal direction."""
    scores = read_score_matrix(study, method=TRAK).rows(np.arange(study.dataset.n_test))
    lengths = np.linalg.norm(scores, axis=1, keepdims=True)
    scores = scores / np.where(lengths > 0, lengths, 1)
    first = np.linalg.eigh(scores @ scores.T)[1][:, -1] @ scores
    return np.argsort(-first * np.sign(first.sum()), kind="stable")


def rows_of_table(found: Audit) -> dict[str, Any]:
    """KLoM of each method and of the floor, by part."""
    table: dict[str, Any] = {
        "floor": {part: _klom(found.floor[part]) for part in PARTS}
        | {"membership": round(found.membership, 3), "cost_share": 1.0}
    }
    for one in found.methods:
        table[one.method] = {
            part: _klom(getattr(one, part).klom)
            | {
                "at_half": round(getattr(one, part).at_half.mean.mean, 3),
                "accuracy": round(getattr(one, part).accuracy, 4),
                "oracle_accuracy": round(getattr(one, part).oracle_accuracy, 4),
            }
            for part in PARTS
        } | {
            "share_of_way": None if one.share_of_way is None else asdict(one.share_of_way),
            "attack": asdict(one.attack),
            "remembered": len(one.remembered),
            "membership": round(one.membership, 3),
            "cost_share": round(one.cost_share, 4),
            "hyper": one.hyper,
        }
    return table


def _klom(found: Klom) -> dict[str, list[float]]:
    return {
        name: [round(value, 3) for value in (one.mean, one.low, one.high)]
        for name, one in (("mean", found.mean), ("p95", found.p95))
    }


def _rounded(values: dict[str, float] | None) -> dict[str, float] | None:
    return None if values is None else {name: round(value, 3) for name, value in values.items()}


def log_progress(done: int, total: int, what: str) -> None:
    if done == total:
        log(f"{total} of {what}")


if __name__ == "__main__":
    report("unlearning", measure, __doc__ or "")
