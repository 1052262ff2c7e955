"""What planted pairs do: models retrained without them, beside what scores predict.

Test pairs with planted ones are far apart, so all planted pairs are removed at once, and the effect
on a test pair is taken to be that of its own. What removing so many pairs does to every test pair
is the mean of those without planted ones; it is subtracted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks._report import log
from benchmarks.clip_lds import embedding_scores, mean_with_interval
from benchmarks.clip_planted import KINDS, TWINS, planted_rows, planted_study
from benchmarks.clip_removals import retrained
from benchmarks.clip_study import SIZE
from engine import Study
from engine.build.retraining import NOTHING, Removal, removal_of
from engine.store.layout import TRAK

Chosen = Callable[[int, np.ndarray, str], np.ndarray]
"""(test row, rows planted for it, their kind) → training rows to remove for it."""


def planted_effects() -> dict[str, Any]:
    """`planted_effect.KIND`: how far the alignment and the cosine of a test pair fall without its
    planted pairs; how many fall (rise, for kinds that should oppose); the rank correlation of the
    predicted falls with the actual ones over the pairs.

    `first_five_fall.METHOD.KIND`: how far cosines fall without the first five that a method finds
    for each test pair: supporters, or opposers where the kind should oppose. *planted* are those
    that the benchmark planted.
    """
    study = planted_study()
    ours, near = study.scores(np.arange(study.dataset.n_test), None, TRAK), embedding_scores(study)
    generator = np.random.default_rng(0)
    methods: dict[str, Chosen] = {
        "planted": lambda test, rows, kind: rows,
        "ours": lambda test, rows, kind: _first(ours[test] * (1 if KINDS[kind].supports else -1)),
        "embedding": lambda test, rows, kind: _first(near[test]),
        "random": lambda test, rows, kind: generator.choice(study.dataset.n_train, TWINS, False),
    }
    falls = {name: _falls(study, name, chosen) for name, chosen in methods.items()}
    planted = {
        kind: {
            **{key: mean_with_interval(fall[tests]) for key, fall in falls["planted"].items()},
            **_predicted(ours, study, kind, falls["planted"]["alignments"]),
        }
        for kind, tests in _tests(study).items()
    }
    every = [pair for kind in KINDS for pair in planted_rows(study, kind)]
    sums = [ours[test, rows].sum() for test, rows in every]
    actual = falls["planted"]["alignments"][[test for test, _ in every]]
    return {
        "planted_effect": planted,
        "planted_effect_rank_correlation": round(float(spearmanr(sums, actual)[0]), 4),
        "first_five_fall": {
            name: {
                kind: mean_with_interval(fall["cosines"][tests])
                for kind, tests in _tests(study).items()
            }
            for name, fall in falls.items()
        },
        "planted_effect_seeds": SIZE.planted_seeds,
    }


def _first(scores: np.ndarray) -> np.ndarray:
    return np.argsort(-scores, kind="stable")[:TWINS]


def _tests(study: Study) -> dict[str, np.ndarray]:
    """Kind → the test pairs that have planted ones of it."""
    return {
        kind: np.array([test for test, _ in planted_rows(study, kind)], np.int64) for kind in KINDS
    }


def _falls(study: Study, name: str, chosen: Chosen) -> dict[str, np.ndarray]:
    """Falls `[n_test]` of alignments and cosines without what is chosen for all test pairs."""
    rows = [chosen(test, own, kind) for kind in KINDS for test, own in planted_rows(study, kind)]
    removed = removal_of(study, np.concatenate(rows).tolist())
    log(f"without {len(removed)} pairs: {name}")
    others = np.setdiff1d(
        np.arange(study.dataset.n_test), np.concatenate([*_tests(study).values()])
    )
    found = {}
    for key in ("alignments", "cosines"):
        fall = _mean(study, NOTHING, key) - _mean(study, removed, key)
        found[key] = fall - fall[others].mean()
    return found


def _mean(study: Study, removed: Removal, key: str) -> np.ndarray:
    seeds = range(SIZE.planted_seeds)
    found: np.ndarray = np.mean([retrained(study, removed, seed)[key] for seed in seeds], axis=0)
    return found


def _predicted(
    scores: np.ndarray, study: Study, kind: str, falls: np.ndarray
) -> Mapping[str, float]:
    pairs = list(planted_rows(study, kind))
    sums = [scores[test, rows].sum() for test, rows in pairs]
    actual = falls[[test for test, _ in pairs]]
    right = (actual > 0) == KINDS[kind].supports
    return {
        "share_as_planted": round(float(right.mean()), 4),
        "rank_correlation": round(float(spearmanr(sums, actual)[0]), 4),
    }
