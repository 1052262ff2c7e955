"""What removing training pairs does: to the cosine of a test pair, and beside replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks._report import log
from benchmarks.clip_lds import embedding_scores, mean_with_interval
from benchmarks.clip_study import SIZE, folder, smooth_study
from engine import Study, store
from engine.applications.joint_removal import strongest_together
from engine.attribution.evaluation.lds import lds
from engine.attribution.replay.smoothness import SHARE, smoothness
from engine.build.models import initial_model, load_checkpoint
from engine.build.retraining import (
    NOTHING,
    Removal,
    model_without,
    removal_of,
    retrained_fingerprint,
)
from engine.build.tasks import task_at, task_for, task_of
from engine.store.layout import HYBRID, TRAK
from engine.store.rows import evenly_spread
from engine.study.examples import read_stacked_arrays
from engine.study.models import checkpoint_seed
from engine.training.outputs import evaluate
from engine.training.trainer import train

REPLAYED = 8


def falls_of(study: Study) -> dict[str, Any]:
    """Mean fall of test pairs' cosines without the first K pairs of a method, with 95 % intervals
    over the pairs; against models with all data and the same seeds. `ours` are the strongest pairs
    one by one, `together` those chosen together.

    Random pairs are the same for all test pairs, as many sets as seeds. Differences to random ones
    and to embeddings are paired.
    """
    algorithm = next(iter(study.algorithms))
    tests = evenly_spread(study.dataset.n_test, SIZE.pairs)
    rankings = {name: RANKINGS[name](study, tests) for name in SIZE.methods}
    generator = np.random.default_rng(0)
    wanted: dict[tuple[str, int], list[Removal]] = {}
    for k in SIZE.removed:
        for name, scores in rankings.items():
            wanted[name, k] = [
                removal_of(study, np.argsort(-row, kind="stable")[:k].tolist()) for row in scores
            ]
        wanted["random", k] = [
            removal_of(study, generator.choice(study.dataset.n_train, k, replace=False).tolist())
            for _ in range(SIZE.seeds)
        ]
    models = {(removed, seed) for some in wanted.values() for removed in some for seed in _SEEDS}
    models |= {(NOTHING, seed) for seed in _SEEDS}
    for number, (removed, seed) in enumerate(sorted(models)):
        log(f"model {number + 1} of {len(models)}")
        retrained(study, removed, seed)
    before = np.mean([cosines(study, NOTHING, seed)[tests] for seed in _SEEDS], axis=0)
    falls: dict[str, dict[int, np.ndarray]] = {}
    for (name, k), removals in wanted.items():
        after = np.stack(
            [np.mean([cosines(study, one, s)[tests] for s in _SEEDS], axis=0) for one in removals]
        )
        own = after.mean(axis=0) if name == "random" else after.diagonal()
        falls.setdefault(name, {})[k] = before - own
    return {
        "fall": {
            name: {str(k): mean_with_interval(some) for k, some in of.items()}
            for name, of in falls.items()
        },
        **_beside_others(falls, "ours", ""),
        **_beside_others(falls, "together", "_together"),
        "fall_settings": {
            "removed": SIZE.removed,
            "pairs": len(tests),
            "seeds": SIZE.seeds,
            "models": len(models),
            "algorithm": algorithm,
        },
    }


def _beside_others(
    falls: dict[str, dict[int, np.ndarray]], name: str, suffix: str
) -> dict[str, Any]:
    """By how much the pairs that a method names do more than others."""
    others = [other for other in ("embedding", "random", "ours") if other != name]
    return {
        f"fall_minus{suffix}": {
            other: {
                str(k): mean_with_interval(falls[name][k] - some)
                for k, some in falls[other].items()
            }
            for other in others
        },
        f"fall_ratio_vs_embedding{suffix}": {
            str(k): round(float(falls[name][k].mean() / falls["embedding"][k].mean()), 2)
            for k in SIZE.removed
        },
    }


def _together(study: Study, tests: np.ndarray) -> np.ndarray:
    """Ranks `[tests, n_train]` in sets that are chosen together; 0 for pairs in none."""
    ranks = np.zeros((len(tests), study.dataset.n_train))
    for row, test in zip(ranks, tests, strict=True):
        chosen = strongest_together(study, int(test), max(SIZE.removed)).rows
        row[chosen] = np.arange(len(chosen), 0, -1)
    return ranks


_SEEDS = range(SIZE.seeds)
RANKINGS: dict[str, Callable[[Study, np.ndarray], np.ndarray]] = {
    "ours": lambda study, tests: study.scores(tests, None, TRAK),
    "hybrid": lambda study, tests: study.scores(tests, None, HYBRID),
    "together": _together,
    "embedding": lambda study, tests: embedding_scores(study)[tests],
}


def cosines(study: Study, removed: Removal, seed: int) -> np.ndarray:
    """Cosines `[n_test]` of the test pairs by model number `seed`, trained without `removed`."""
    return np.array(retrained(study, removed, seed)["cosines"])


def retrained(study: Study, removed: Removal, seed: int) -> Mapping[str, np.ndarray]:
    """`cosines` and `alignments` `[n_test]` of the test pairs by model number `seed`, trained
    without `removed`. They are kept; a checkpoint is the model without nothing."""
    algorithm = next(iter(study.algorithms))
    fingerprint = retrained_fingerprint(study, algorithm, removed)
    path = folder() / "retrained" / f"{fingerprint}-{seed}.safetensors"
    if not path.exists():
        model = (
            load_checkpoint(study, algorithm, seed, "cpu")
            if removed == NOTHING and seed < study.checkpoints(algorithm)
            else model_without(study, algorithm, removed, seed, "cpu")
        )
        task = task_for(study, model, checkpoint_seed(study, seed))
        arrays = read_stacked_arrays(study, "test")
        found = evaluate(task, model, arrays, study.dataset.encoding, 512, "cpu")
        pictures, captions = np.split(np.asarray(found["embeddings"], np.float32), 2, axis=1)
        values = {"cosines": 2 * (pictures * captions).sum(1), "alignments": found["output"]}
        store.write_tensors(path, values, fingerprint)
    return store.read_tensors(path, fingerprint)


# --- replay ---------------------------------------------------------------------------------------


def replay() -> dict[str, Any]:
    """Replay of `REPLAYED` test pairs beside TRAK of the same model, with smooth towers.

    Truth is the same seed trained with weights of 0 for a random 1 % of the pairs. `replay_lds` is
    of the alignment against the negatives as that model embeds them; in `fixed_negatives`, as the
    model with all data does, which is what replay differentiates.
    """
    study = smooth_study()
    tests = evenly_spread(study.dataset.n_test, REPLAYED)
    n_train = study.dataset.n_train
    scores = {
        "replay": study.replay(tests, workers=0)[0],
        "trak": study.scores(tests, None, TRAK),
    }
    masks = random_removals(SIZE.random_removals, n_train, 18)
    outputs = []
    for number, mask in enumerate(masks):
        log(f"removal {number + 1} of {len(masks)}")
        outputs.append(outputs_with(study, mask.astype(float), tests))
    found: dict[str, Any] = {}
    for place, name in enumerate(("replay_lds", "fixed_negatives")):
        truth = np.stack([both[place] for both in outputs])
        found[name] = {method: rounded_lds(tau, masks, truth) for method, tau in scores.items()}
    found["replay_smoothness"] = round(
        smoothness(lambda weights: outputs_with(study, weights, tests)[0], n_train, 0), 3
    )
    found["replay_settings"] = {"pairs": len(tests), "removals": len(masks), "share": SHARE}
    return found


def random_removals(count: int, n_train: int, seed: int) -> np.ndarray:
    """Masks `[count, n_train]`, each without `SHARE` of the training examples, one at least."""
    masks = np.ones((count, n_train), bool)
    for number, mask in enumerate(masks):
        some = np.random.default_rng([seed, number]).permutation(n_train)
        mask[some[: max(1, round(SHARE * n_train))]] = False
    return masks


def rounded_lds(tau: np.ndarray, masks: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    found = lds(np.asarray(tau, np.float64), masks, truth)
    values = (("lds", found.mean), ("low", found.low), ("high", found.high))
    return {key: round(float(value), 4) for key, value in values}


def outputs_with(
    study: Study, weights: np.ndarray, tests: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Alignments of test pairs by model 0 trained with these weights, with its own negatives and
    with those of checkpoint 0."""
    algorithm = next(iter(study.algorithms))
    recipe, seed = study.spec.algorithms[algorithm], checkpoint_seed(study, 0)
    model = train(
        task_of(study),
        initial_model(study, recipe, seed),
        read_stacked_arrays(study, "train"),
        study.dataset.encoding,
        recipe,
        seed,
        "cpu",
        weights=weights,
    )
    some = {name: array[tests] for name, array in read_stacked_arrays(study, "test").items()}
    own, fixed = (
        evaluate(task, model, some, study.dataset.encoding, 512, "cpu")["output"]
        for task in (task_for(study, model, seed), task_at(study, algorithm, 0))
    )
    return own, fixed
