"""Diffusion: are the training pictures found that made a picture?

    DATALOUPE_DIFFUSION_PARTS=quality,lds python -m benchmarks.diffusion --json [--save]

The study is the example that ships (`dataloupe demo --example diffusion`), with three checkpoints
and a run bank; its test split is what the checkpoints make from the same seeds, and pictures that
were held out. Each part can be run alone, in any order; results of the others are kept in
`.bench/diffusion` and reported, too, each with its device. `DATALOUPE_DIFFUSION_SIZE` is `whole`,
`short` or `tiny` (`benchmarks.diffusion_study`).

Methods are `ours_N` (TRAK of N checkpoints), `gradient_cosine_1`, `pixels` (distance), `features_N`
(cosine of the U-Net's embeddings), `journey_1` (`benchmarks.diffusion_study.journey`) and `random`.

- `recognised_share`: share of made pictures that a classifier, trained on all shipped pictures,
  takes for the class that they were made by with a confidence of .8 or more; `recognised_of` by
  class, `recognised_without_guidance`; `recognised_of_held_out` and `classifier_accuracy` of real
  pictures. They are of the example as it ships, whatever the size. A sheet of 100 pictures is
  written beside the results.
- `lds.METHOD`: of the denoising output on the masks of the run bank, two runs each: `made` on the
  pictures that the checkpoints made, `made_by_first` on those of the first checkpoint, which
  `journey_1` is of, `held_out` on the others; `lds_noise_ceiling` is what perfect predictions
  could reach.
- `lds_ratio_vs_journey`: ours with most checkpoints over `journey_1`, on made pictures.
- `own_class_share`: share of the supporting scores of a made picture that comes from its class.
- `watermark_precision_at_20`: share of the 20 strongest supporters of pictures with a watermark
  that carry it; 5 % of the training pictures do.
- `change.METHOD`: distance in the classifier's features, and `class_changed.METHOD`, the share that
  it takes for another class, of pictures made again from the same seeds by models that were trained
  without the pictures which a method names (`change_settings`); `random` removes random ones.
- `change_ratio_vs_neighbours`: ours over the larger of nearest pixels and features.
- `replay_lds.METHOD`: of replay and TRAK of the same model, on models of the same seed without a
  random 1 % of the pictures.
- `featurise_vs_bound`: as in `benchmarks.clip`, with the example's ten timesteps a picture.

Intervals are 95 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks._parts import run_parts
from benchmarks._report import report
from benchmarks._speed import features_vs_bound
from benchmarks.clip_lds import mean_with_interval
from benchmarks.diffusion_judge import Judge, judge_of
from benchmarks.diffusion_removals import changes, replay
from benchmarks.diffusion_study import (
    ALGORITHM,
    METHODS,
    MOST,
    SIZE,
    example_study,
    folder,
    made_study,
    marked_rows,
    marked_study,
    ours,
    own_rows,
    trained_study,
)
from benchmarks.text_lds import rounded, scored
from engine import Study
from engine.attribution.evaluation.ceiling import RepeatedRuns, noise_ceiling
from engine.build.generating import GUIDANCE
from engine.build.models import load_checkpoint
from engine.build.tasks import task_of
from engine.study.examples import read_stacked_arrays
from engine.study.run_banks import read_repeated_runs

CONFIDENT = 0.8
STRONGEST = 20


def measure() -> dict[str, Any]:
    """The parts that are asked for, and those measured before."""
    return run_parts(folder(), PARTS, "DATALOUPE_DIFFUSION_PARTS")


# --- how good the pictures are --------------------------------------------------------------------


def quality(study: Study) -> dict[str, Any]:
    """Whether a classifier recognizes what the first checkpoint makes, with the default guidance
    and without."""
    names, arrays = study.dataset.encoding["conditions"], read_stacked_arrays(study, "test")
    seeds = np.arange(SIZE.judged)
    classes, judged_by = seeds % len(names), judge()
    found: dict[str, Any] = {}
    for what, guidance in (("recognised", GUIDANCE), ("recognised_without_guidance", 0.0)):
        pictures = _made(study, seeds, guidance)
        seen = judged_by(pictures)
        right = (seen.classes == classes) & (seen.confidence >= CONFIDENT)
        found[what] = mean_with_interval(right.astype(float))
        if guidance:
            _write_sheet(pictures[:100])
            found["recognised_share"] = round(float(right.mean()), 4)
            found["recognised_of"] = {
                name: round(float(right[classes == number].mean()), 4)
                for number, name in enumerate(names)
            }
            found["taken_for"] = {
                name: int((seen.classes == number).sum()) for number, name in enumerate(names)
            }
    real = judged_by(np.array(arrays["input"][:]))
    right = real.classes == np.array(arrays["class_labels"][:])
    return found | {
        "recognised_of_held_out": round(float((right & (real.confidence >= CONFIDENT)).mean()), 4),
        "classifier_accuracy": round(float(right.mean()), 4),
        "recognised_settings": {"pictures": len(seeds), "guidance": GUIDANCE},
    }


def _made(study: Study, seeds: np.ndarray, guidance: float) -> np.ndarray:
    make = task_of(study).generate
    assert make is not None
    model = load_checkpoint(study, ALGORITHM, 0, "cpu")
    return make(model, study.dataset.encoding, seeds, 50, 1, guidance).pictures


def judge() -> Judge:
    """The classifier, trained once."""
    return judge_of(folder() / "judge.safetensors", SIZE.epochs_of_classifier)


def _write_sheet(pictures: np.ndarray) -> None:
    """A column for each class: pictures `[n, 1, h, w]` whose classes take turns."""
    from PIL import Image

    columns = min(10, len(pictures))
    whole = pictures[: len(pictures) // columns * columns, 0]
    n, h, w = whole.shape
    sheet = whole.reshape(n // columns, columns, h, w).transpose(0, 2, 1, 3)
    Image.fromarray(sheet.reshape(-1, columns * w)).save(folder() / "sheet.png")


# --- how good the scores are ----------------------------------------------------------------------


def lds_of(study: Study) -> dict[str, Any]:
    """LDS of every method on made and on held-out pictures."""
    bank = study.bank(train=False)
    repeated = read_repeated_runs(study, ALGORITHM, ("fit", "validation", "test"))
    held_out = np.flatnonzero((study.table("test")["origin"] != "made").to_numpy())
    made = np.concatenate([own_rows(study, m) for m in range(MOST)])
    rows = {"made": made, "made_by_first": own_rows(study, 0), "held_out": held_out}
    found: dict[str, dict[str, Any]] = {}
    for name, scores in METHODS.items():
        tau = scores(study)
        found[name] = {}
        for what, some in rows.items():
            if tau[some].any():
                part = type(bank)(bank.masks, None, bank.test[:, some], bank.seeds, bank.numbers)
                found[name][what] = scored(tau[some], part)
    of_journey = found["journey_1"]
    del of_journey["made"]  # it is of the pictures of the first checkpoint alone
    best, other = (found[name]["made_by_first"]["lds"] for name in (f"ours_{MOST}", "journey_1"))
    return {
        "lds": found,
        "lds_noise_ceiling": {what: _ceiling(repeated, some) for what, some in rows.items()},
        "lds_ratio_vs_journey": round(best / other, 2) if other > 0 else None,
        "masks": len(bank),
        "pictures": {what: len(some) for what, some in rows.items()},
    }


def _ceiling(repeated: RepeatedRuns, rows: np.ndarray) -> dict[str, float] | None:
    found = noise_ceiling(
        replace(repeated, means=repeated.means[:, rows], squares=repeated.squares[:, rows])
    )
    return None if found is None else rounded(found)


def own_class(study: Study) -> dict[str, Any]:
    """`own_class_share` of our scores on made pictures."""
    rows = np.flatnonzero((study.table("test")["origin"] == "made").to_numpy())
    classes = {
        split: np.array(read_stacked_arrays(study, split)["class_labels"][:])
        for split in ("train", "test")
    }
    support = ours(study, MOST)[rows].clip(min=0)
    same = classes["test"][rows][:, None] == classes["train"][None]
    shares = (support * same).sum(1) / support.sum(1)
    return {
        "own_class_share": mean_with_interval(shares),
        "own_class_share_by_chance": round(float(same.mean()), 4),
    }


def watermark(study: Study) -> dict[str, Any]:
    """Whether pictures with a watermark are supported by those that carry it."""
    carries = np.zeros(study.dataset.n_train, bool)
    carries[marked_rows(study.dataset.n_train)] = True
    strongest = min(STRONGEST, int(carries.sum()))
    order = np.argsort(-ours(study, MOST), axis=1)[:, :strongest]
    shares = carries[order].mean(1)
    return {
        "watermark_precision_at_20": mean_with_interval(shares),
        "watermarked": int(carries.sum()),
        "watermark_strongest": strongest,
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "featurise": lambda: features_vs_bound(trained_study(), SIZE.timed),
    "watermark": lambda: watermark(marked_study()),
    "quality": lambda: quality(example_study()),
    "own_class": lambda: own_class(made_study()),
    "lds": lambda: lds_of(made_study()),
    "replay": lambda: replay(made_study()),
    "change": lambda: changes(made_study(), judge()),
}
"""Name → its keys."""


if __name__ == "__main__":
    report("diffusion", measure, __doc__ or "")
