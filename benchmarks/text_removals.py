"""What removing a method's strongest supporters does: QLD, and brittle texts that flip.

QLD (query loss difference) is the rise of a test example's loss when the 1 % of the training texts
that a method ranks first for it are removed and the model is trained again, against models with all
data and the same seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks._report import log
from benchmarks.text_study import bm25_scores, embedding_scores, random_scores
from engine import Study
from engine.applications.brittle.supports import find, verify_brittle
from engine.attribution.evaluation.quality import share
from engine.build.retraining import NOTHING, removal_of, retrain, retrained
from engine.store.rows import evenly_spread

SHARE = 0.01
QUERIES = 16
SEEDS = 5
BRITTLE = 20
AT_MOST = 20


def qld(study: Study) -> dict[str, Any]:
    """Mean rise of the loss by method, with its standard error over test examples."""
    algorithm = next(iter(study.algorithms))
    count = max(1, round(SHARE * study.dataset.n_train))
    tests = evenly_spread(study.dataset.n_test, QUERIES)
    rankings = {
        "ours": study.scores(tests, algorithm, "trak"),
        "bm25": bm25_scores(study, study.checkpoints(algorithm))[tests],
        "embedding": embedding_scores(study, study.checkpoints(algorithm))[tests],
        "random": random_scores(study, 0)[tests],
    }
    removals = {
        name: [removal_of(study, np.argsort(-row, kind="stable")[:count]) for row in scores]
        for name, scores in rankings.items()
    }
    wanted = [NOTHING, *(one for some in removals.values() for one in some)]
    retrain(study, algorithm, wanted, SEEDS, on_done=lambda _, done, total: _log(done, total))
    found = {}
    for name, some in removals.items():
        rises = [
            np.mean(
                [
                    _loss(study, algorithm, removed, seed, int(test))
                    - _loss(study, algorithm, NOTHING, seed, int(test))
                    for seed in range(SEEDS)
                ]
            )
            for test, removed in zip(tests, some, strict=True)
        ]
        error = float(np.std(rises, ddof=1) / np.sqrt(len(rises)))
        found[name] = {"qld": round(float(np.mean(rises)), 4), "standard_error": round(error, 4)}
    return {
        "qld": found,
        "qld_ratio_vs_bm25": round(found["ours"]["qld"] / found["bm25"]["qld"], 2),
        "qld_settings": {"removed": count, "queries": len(tests), "seeds": SEEDS},
    }


def brittle_verified(study: Study) -> dict[str, Any]:
    """Share of the texts predicted to flip without at most 20 texts that do, when retrained."""
    supports = find(study, at_most=AT_MOST)
    ranked = supports.ranked
    keys = np.random.PCG64(0).random_raw(len(ranked))
    tests = np.sort(ranked[np.argsort(keys, kind="stable")[:BRITTLE]]).tolist()
    if not tests:
        return {"brittle_verified_share": None, "brittle": {"predicted": 0}}
    verified = verify_brittle(
        study, supports, tests, seeds=SEEDS, report=lambda done, total, what: _log(done, total)
    )
    flipped = share(sum(one.outcomes[0].flipped for one in verified), len(verified))
    return {
        "brittle_verified_share": round(flipped.mean, 3),
        "brittle": {
            "low": round(flipped.low, 3),
            "high": round(flipped.high, 3),
            "verified": len(verified),
            "predicted": len(ranked),
        },
    }


def _loss(study: Study, algorithm: str, removed: tuple[int, ...], seed: int, test: int) -> float:
    """Cross entropy of the true label: softplus of minus the margin."""
    margin = float(retrained(study, algorithm, removed, seed).output[test])
    return float(np.logaddexp(0.0, -margin))


def _log(done: int, total: int) -> None:
    if done % 20 == 0:
        log(f"  {done} of {total} models")
