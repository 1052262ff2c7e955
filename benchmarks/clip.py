"""Pictures with captions: retrieval, LDS, what removals do, and the speed of features.

    DATALOUPE_CLIP_PARTS=recall,lds python -m benchmarks.clip --json [--save]

The study is the example that ships, 3,177 + 601 emoji with their names, with a run bank of 80
masks. Each part can be run alone, in any order; results of the others are kept in `.bench/clip` and
reported, too, each with its device. `DATALOUPE_CLIP_SIZE` is `whole`, `short` (removals of 50 pairs
for 20 test pairs only) or `tiny` (whether every part runs).

Minutes of one core, estimated from the tiny size (a training of all pairs takes 18 s): building the
study 25, recall and featurise 1 each, lds 5, traker 60, planted 5, replay 30, removals 480 (`short`
30: 86 models).

- `recall_at.K`: mean of both directions among all test pairs, by the mean cosines of the
  checkpoints.
- `lds.METHOD.CHECKPOINTS`: of the alignment, on the test masks. *picture embedding* and *caption
  embedding* are cosines of one tower, *embedding* their mean. `ratio_vs_traker.CHECKPOINTS` is
  against traker's CLIP output with uniform negatives.
- `planted_precision_at_5`, `swapped_precision_at_5`: see `benchmarks.clip_lds.planted`.
- `fall.METHOD.K`: how far the cosine of a test pair falls when the K training pairs that a method
  ranks first for it are removed, against models with all data and the same seeds; with 95 %
  intervals over the pairs. Finished models are kept, so it can be interrupted.
- `replay_lds`, `replay_smoothness`: see `benchmarks.clip_removals.replay`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks._parts import run_parts
from benchmarks._report import report
from benchmarks.clip_lds import lds_of, lds_of_traker, planted
from benchmarks.clip_removals import falls_of, replay
from benchmarks.clip_study import SIZE, clip_study, folder
from engine import Study
from engine.attribution.trak.primal import primal_projection
from engine.attribution.trak.projection import features
from engine.build.batches import batches_of
from engine.build.models import load_checkpoint
from engine.build.tasks import task_at
from engine.study.models import checkpoint_seed
from engine.study.retrieval import read_recall
from engine.study.score_matrices import stored_solver

ROUNDS = 5


def measure() -> dict[str, Any]:
    """The parts that are asked for, and those measured before."""
    found = run_parts(folder(), PARTS, "DATALOUPE_CLIP_PARTS")
    if "lds" in found and "lds_of_traker" in found:
        found["lds"] |= found.pop("lds_of_traker")
        found["ratio_vs_traker"] = {
            count: round(found["lds"]["ours"][count]["lds"] / of["lds"], 2)
            for count, of in found["lds"]["traker_repaired"].items()
        }
    return found


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "recall": lambda: recall_of(clip_study()),
    "lds": lambda: lds_of(clip_study()),
    "featurise": lambda: featurise(clip_study()),
    "traker": lambda: lds_of_traker(clip_study()),
    "planted": planted,
    "replay": replay,
    "removals": lambda: falls_of(clip_study()),
}
"""Name → its keys."""


def recall_of(study: Study) -> dict[str, Any]:
    """`recall_at` in both directions and their mean."""
    found = {
        side: {str(k): round(value, 4) for k, value in recall.items()}
        for side, recall in read_recall(study).items()
    }
    mean = {k: round((found["caption"][k] + found["picture"][k]) / 2, 4) for k in found["caption"]}
    return {"recall_at": mean, "recall_of_sides": found}


# --- speed ----------------------------------------------------------------------------------------


def featurise(study: Study) -> dict[str, Any]:
    """Rate of features, relative to one forward and one full backward pass; medians of rounds."""
    algorithm = next(iter(study.algorithms))
    model = load_checkpoint(study, algorithm, 0, "cpu")
    output, spec = task_at(study, algorithm, 0).model_output, study.spec.trak
    batches = list(batches_of(study, "train", "cpu", spec.batch_size, 0, SIZE.timed)())
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
        "pairs_a_second": {name: round(SIZE.timed / one, 1) for name, one in medians.items()},
    }


if __name__ == "__main__":
    report("clip", measure, __doc__ or "")
