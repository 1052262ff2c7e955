"""Replay beside TRAK of the same model: what random removals do, and where the true rows rank."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks._report import log
from benchmarks.clip_lds import mean_with_interval
from benchmarks.clip_removals import outputs_with
from benchmarks.facts_measures import recalls, reciprocal_ranks
from benchmarks.facts_study import SIZE, facts_study, stating
from engine.attribution.evaluation.lds import lds
from engine.attribution.replay.smoothness import SHARE, smoothness
from engine.store.layout import TRAK
from engine.store.rows import evenly_spread


def replay() -> dict[str, Any]:
    """Truth is the same seed trained with weights of 0 for a random 1 % of the rows."""
    study = facts_study(1)
    tests = evenly_spread(study.dataset.n_test, SIZE.replayed)
    n_train = study.dataset.n_train
    scores = {
        "replay": study.replay(tests, workers=0)[0],
        "trak": study.scores(tests, None, TRAK),
    }
    masks = np.ones((SIZE.random_removals, n_train), bool)
    for number, mask in enumerate(masks):
        some = np.random.default_rng([19, number]).permutation(n_train)
        mask[some[: max(1, round(SHARE * n_train))]] = False
    outputs = []
    for number, mask in enumerate(masks):
        log(f"  removal {number + 1} of {len(masks)}")
        outputs.append(outputs_with(study, mask.astype(float), tests)[0])
    true = stating(study)[tests]
    found: dict[str, Any] = {"replay_lds": {}, "replay_mrr": {}, "replay_recall_at_10": {}}
    for method, tau in scores.items():
        tau = np.asarray(tau, np.float64)
        of = lds(tau, masks, np.stack(outputs))
        values = (("lds", of.mean), ("low", of.low), ("high", of.high))
        found["replay_lds"][method] = {key: round(float(value), 4) for key, value in values}
        found["replay_mrr"][method] = mean_with_interval(reciprocal_ranks(tau, true))
        found["replay_recall_at_10"][method] = mean_with_interval(recalls(tau, true))
    found["replay_smoothness"] = round(
        smoothness(lambda weights: outputs_with(study, weights, tests)[0], n_train, 0), 3
    )
    found["replay_settings"] = {"questions": len(tests), "removals": len(masks), "share": SHARE}
    return found
