"""What removing training pictures does to pictures that are made again, and beside replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._report import log
from benchmarks.clip_lds import mean_with_interval
from benchmarks.clip_removals import outputs_with, random_removals, rounded_lds
from benchmarks.diffusion_judge import Judge
from benchmarks.diffusion_study import (
    ALGORITHM,
    MOST,
    SIZE,
    likeness,
    ours,
    own_rows,
    pixels,
)
from engine import Study, store
from engine.attribution.replay.smoothness import SHARE, smoothness
from engine.build.retraining import MADE, NOTHING, Removal, model_file, removal_of, retrain
from engine.study.examples import read_stacked_arrays

REMOVED: dict[str, Callable[[Study], np.ndarray]] = {
    "ours": lambda study: ours(study, MOST),
    "pixels": pixels,
    "features": lambda study: likeness(study, MOST),
}
"""Method → scores `[n_test, n_train]`; what they say most is removed."""
_RANDOM_SETS = 3


def changes(study: Study, judge: Judge) -> dict[str, Any]:
    """How far pictures move, made again from the same seeds without the training pictures that a
    method names for them; paired with the models of the same seeds that have all data.

    A seed's removal set follows from the mean of the scores of what each checkpoint made from it.
    Random sets are the same for all pictures.
    """
    count, size = SIZE.changed, SIZE.removed
    by_checkpoint = [own_rows(study, m)[:count] for m in range(MOST)]
    sets: dict[str, list[Removal]] = {}
    for name, scores in REMOVED.items():
        tau = scores(study)
        mean = np.mean([tau[rows] for rows in by_checkpoint], axis=0)
        sets[name] = [
            removal_of(study, np.argsort(-row, kind="stable")[:size].tolist()) for row in mean
        ]
    generator = np.random.default_rng(0)
    random = [
        removal_of(study, generator.choice(study.dataset.n_train, size, replace=False).tolist())
        for _ in range(_RANDOM_SETS)
    ]
    wanted = [NOTHING, *random, *(one for some in sets.values() for one in some)]
    done = {"models": 0}

    def tell(removed: Removal, finished: int, total: int) -> None:
        done["models"] = total
        log(f"  model {finished} of {total}")

    retrain(study, ALGORITHM, wanted, MOST, on_done=tell)
    before = [_made(study, NOTHING, seed) for seed in range(MOST)]

    def moved(removed: Removal, place: int) -> tuple[float, float]:
        """(distance in the judge's features, share of pictures taken for another class)."""
        found = []
        for seed in range(MOST):
            pair = np.stack([before[seed][place], _made(study, removed, seed)[place]])
            seen = judge(pair)
            far = float(np.linalg.norm(seen.features[0] - seen.features[1]))
            found.append((far, float(seen.classes[0] != seen.classes[1])))
        far, other = np.mean(found, axis=0)
        return float(far), float(other)

    measured = {
        name: np.array([moved(one, place) for place, one in enumerate(some)])
        for name, some in sets.items()
    }
    measured["random"] = np.array(
        [np.mean([moved(one, place) for one in random], axis=0) for place in range(count)]
    )
    best = max(measured[name][:, 0].mean() for name in ("pixels", "features"))
    return {
        "change": {name: mean_with_interval(found[:, 0]) for name, found in measured.items()},
        "class_changed": {
            name: mean_with_interval(found[:, 1]) for name, found in measured.items()
        },
        "change_minus": {
            name: mean_with_interval(measured["ours"][:, 0] - measured[name][:, 0])
            for name in ("pixels", "features", "random")
        },
        "change_ratio_vs_neighbours": round(float(measured["ours"][:, 0].mean() / best), 3),
        "change_settings": {
            "pictures": count,
            "seeds": MOST,
            "removed": size,
            "of": study.dataset.n_train,
            "models": done["models"],
        },
    }


def _made(study: Study, removed: Removal, seed: int) -> np.ndarray:
    """What a retrained model makes, `[n, c, h, w]`; of checkpoints, what is in the study."""
    path = model_file(study, ALGORITHM, removed, seed)
    if not removed and not path.exists():
        rows = own_rows(study, seed)
        found: np.ndarray = np.array(read_stacked_arrays(study, "test")["input"][rows])
        return found
    made: np.ndarray = store.read_tensors(path)[MADE]
    return made


# --- replay ---------------------------------------------------------------------------------------


def replay(study: Study) -> dict[str, Any]:
    """Replay of made pictures beside TRAK of the same model.

    Truth is the same seed trained with weights of 0 for a random 1 % of the pictures.
    """
    tests = own_rows(study, 0)[: SIZE.replayed]
    n_train = study.dataset.n_train
    scores = {
        "replay": study.replay(tests, workers=0)[0],
        "trak": ours(study, 1)[tests],
    }
    masks = random_removals(SIZE.random_removals, n_train, 20)
    outputs = []
    for number, mask in enumerate(masks):
        log(f"  removal {number + 1} of {len(masks)}")
        outputs.append(outputs_with(study, mask.astype(float), tests)[0])
    truth = np.stack(outputs)
    return {
        "replay_lds": {name: rounded_lds(tau, masks, truth) for name, tau in scores.items()},
        "replay_smoothness": round(
            smoothness(lambda weights: outputs_with(study, weights, tests)[0], n_train, 0), 3
        ),
        "replay_settings": {"pictures": len(tests), "removals": len(masks), "share": SHARE},
    }
