"""What does each lever of smooth training give to accuracy, TRAK, the hybrid and replay?

    DATALOUPE_REPLAY_REMOVALS=16 python -m benchmarks.levers --json --save

The MLP and, if `DATALOUPE_LEVERS=mlp,cnn` asks for it, the CNN of `benchmarks.replay`, on as many
pictures as there, with each lever alone and with all together. Each variant takes about two minutes
of one core with the MLP. Truth and methods are those of `benchmarks.replay`.

`levers.MODEL.VARIANT`, where VARIANT is `none`, the name of a lever, or `all`:

- `accuracy` on all 1,000 test pictures, `smoothness` (the mean of `benchmarks.replay.DIRECTIONS`);
- `lds.METHOD` over random removals of 1 % of the training pictures, the same seed, with 95 %
  intervals: `replay`, `trak` (of the same model), `hybrid` (TRAK and 80 runs), `combined`.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from benchmarks import replay, workload
from benchmarks._report import log, report
from benchmarks.replay import Algorithm
from engine.store.spec import AlgorithmSpec

MODELS = os.environ.get("DATALOUPE_LEVERS", "mlp").split(",")
PICTURES = {"mlp": 1500, "cnn": 600}
"""Of each model, unless `DATALOUPE_LEVERS_PICTURES` says otherwise."""
FRACTION = replay.FRACTIONS["1%"]
SLOWER = {"learning_rate": 0.03, "epochs": 20}
BASES: dict[str, AlgorithmSpec] = {
    "mlp": workload.MLP.recipe,
    "cnn": workload.CNN.recipe.model_copy(update={"architecture_options": {"width": 8}}),
}
LEVERS: dict[str, dict[str, dict[str, Any]]] = {
    "mlp": {
        "activation": {"options": {"activation": "gelu"}},
        "batch": {"changes": {"batch_size": 250}},
        "rate": {"changes": SLOWER},
        "logit_scale": {"options": {"logit_scale": 0.5}},
    },
    "cnn": {
        "activation": {"options": {"activation": "gelu"}},
        "pooling": {"options": {"pooling": "average"}},
        "batch": {"changes": {"batch_size": 250}},
        "rate": {"changes": SLOWER},
        "logit_scale": {"options": {"logit_scale": 0.5}},
    },
}


def measure() -> dict[str, Any]:
    """All keys of the models that are asked for."""
    torch.set_num_threads(1)
    return {
        "pictures": {model: pictures(model) for model in MODELS},
        "removals": replay.REMOVALS,
        "levers": {model: measure_model(model) for model in MODELS},
    }


def pictures(model: str) -> int:
    return int(os.environ.get("DATALOUPE_LEVERS_PICTURES", PICTURES[model]))


def measure_model(model: str) -> dict[str, Any]:
    """Every variant of a model."""
    replay.small_data(pictures(model))
    found = {}
    for name, recipe in variants(model).items():
        algorithm = Algorithm(f"{model}_{name}", recipe, pictures(model))
        found[name] = {
            "accuracy": replay.accuracy(algorithm),
            "smoothness": replay.mean_smoothness(algorithm),
            "lds": replay.quality(algorithm, FRACTION, replay.scores(algorithm, 1), [replay.SEED]),
        }
        log(f"{model} {name}: {found[name]}")
    return found


def variants(model: str) -> dict[str, AlgorithmSpec]:
    """Name of a variant → its recipe."""
    levers = LEVERS[model]
    alone = {name: with_levers(model, [lever]) for name, lever in levers.items()}
    return {"none": BASES[model], **alone, "all": with_levers(model, list(levers.values()))}


def with_levers(model: str, levers: list[dict[str, dict[str, Any]]]) -> AlgorithmSpec:
    """The recipe of a model with these levers pulled."""
    base = BASES[model]
    options = dict(base.architecture_options)
    changes: dict[str, Any] = {}
    for lever in levers:
        options |= lever.get("options", {})
        changes |= lever.get("changes", {})
    return base.model_copy(update={"architecture_options": options, **changes})


if __name__ == "__main__":
    report("levers", measure, __doc__ or "")
