"""How fast a built study's training examples become features, compared with a lower bound."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

from engine import Study
from engine.attribution.trak.primal import primal_projection
from engine.attribution.trak.projection import features
from engine.build.batches import batches_of
from engine.build.models import load_checkpoint
from engine.build.tasks import task_at
from engine.study.models import checkpoint_seed
from engine.study.score_matrices import stored_solver

ROUNDS = 5


def features_vs_bound(study: Study, examples: int) -> dict[str, Any]:
    """Rate of features, relative to one forward and one full backward pass; medians of rounds.

    Args:
        examples: Of each round, the first of the training split.
    """
    algorithm = next(iter(study.algorithms))
    model = load_checkpoint(study, algorithm, 0, "cpu")
    output, spec = task_at(study, algorithm, 0).model_output, study.spec.trak
    batches = list(batches_of(study, "train", "cpu", spec.batch_size, 0, examples)())
    solver = replace(stored_solver(study, algorithm), width=spec.width, proj_dim=spec.proj_dim)
    projection = primal_projection(model, output, batches[0], solver, checkpoint_seed(study, 0))

    def bound() -> None:
        for batch in batches:
            model.zero_grad()
            output(model, batch).sum().backward()

    def ours() -> None:
        for _ in features(model, output, iter(batches), projection):
            pass

    times: dict[str, list[float]] = {"bound": [], "ours": []}
    for number in range(ROUNDS):
        order = [("bound", bound), ("ours", ours)]
        for name, run in order[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(some) for name, some in times.items()}
    return {
        "featurise_vs_bound": round(medians["bound"] / medians["ours"], 3),
        "examples_a_second": {name: round(examples / one, 1) for name, one in medians.items()},
    }
