"""Pictures with captions: retrieval, LDS, what removals do, and the speed of features.

    DATALOUPE_CLIP_PARTS=recall,lds python -m benchmarks.clip --json [--save]

The study is the example that ships, 3,177 + 601 emoji with their names, with a run bank of 80
masks. Each part can be run alone, in any order; results of the others are kept in `.bench/clip` and
reported, too, each with its device. `DATALOUPE_CLIP_SIZE` is `whole`, `short` (removals of 50 pairs
for 20 test pairs, pairs planted for 30 of each kind, 20 removals beside replay) or `tiny` (whether
every part runs). `DATALOUPE_CLIP_TRAKER` is the number of checkpoints that traker scores.

Minutes of one core, estimated from the tiny size (a training of all pairs takes 18 s): building the
study 25, recall and featurise 1 each, lds 5, traker 60, planted 8, effects 8 (`short` 5), replay
30, removals 480 (`short` 30: 86 models).

- `recall_at.K`: mean of both directions among all test pairs, by the mean cosines of the
  checkpoints.
- `lds.METHOD.CHECKPOINTS`: of the alignment, on the 16 test masks; `lds_on_more_masks`: on these
  and the 48 that datamodels are fitted to, of methods that are not. *picture embedding* and
  *caption embedding* are cosines of one tower, *embedding* their mean.
  `ratio_vs_traker.CHECKPOINTS` is on more masks, against traker's CLIP output with uniform
  negatives.
- `planted_precision_at_5`, `designer_precision_at_5`, `swapped_precision_at_5`,
  `mislabelled_precision_at_5`, `right_sign`: see `benchmarks.clip_planted`. The kinds of another
  designer need `DATALOUPE_CLIP_DESIGNER`, the file of `npm pack emoji-datasource-twitter@15.1.2`
  (Twemoji, CC BY 4.0).
- `planted_effect.KIND`, `first_five_fall.METHOD.KIND`: see `benchmarks.clip_effects`.
- `fall.METHOD.K`: how far the cosine of a test pair falls when the K training pairs that a method
  ranks first for it are removed, against models with all data and the same seeds; with 95 %
  intervals over the pairs. `ours` are the strongest one by one, `together` those that are chosen
  together. Finished models are kept, so it can be interrupted.
- `replay_lds`, `replay_smoothness`: see `benchmarks.clip_removals.replay`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks._parts import run_parts
from benchmarks._report import report
from benchmarks._speed import features_vs_bound
from benchmarks.clip_effects import planted_effects
from benchmarks.clip_lds import lds_of, lds_of_traker
from benchmarks.clip_planted import planted
from benchmarks.clip_removals import falls_of, replay
from benchmarks.clip_study import SIZE, clip_study, folder
from engine import Study
from engine.study.retrieval import read_recall


def measure() -> dict[str, Any]:
    """The parts that are asked for, and those measured before."""
    found = run_parts(folder(), PARTS, "DATALOUPE_CLIP_PARTS")
    if "lds" in found and "lds_of_traker" in found:
        for key in ("lds", "lds_on_more_masks"):
            found[key] |= found.pop(f"{key}_of_traker")
        more = found["lds_on_more_masks"]
        found["ratio_vs_traker"] = {
            count: round(more["ours"][count]["lds"] / of["lds"], 2)
            for count, of in more["traker_repaired"].items()
        }
    return found


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "recall": lambda: recall_of(clip_study()),
    "lds": lambda: lds_of(clip_study()),
    "featurise": lambda: features_vs_bound(clip_study(), SIZE.timed),
    "traker": lambda: lds_of_traker(clip_study()),
    "planted": planted,
    "effects": planted_effects,
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


if __name__ == "__main__":
    report("clip", measure, __doc__ or "")
