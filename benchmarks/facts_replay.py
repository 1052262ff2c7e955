"""Replay beside TRAK of the same model: what random removals do, and where the true rows rank."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks._report import log
from benchmarks.clip_lds import mean_with_interval
from benchmarks.clip_removals import outputs_with, random_removals, rounded_lds
from benchmarks.facts_measures import recalls, reciprocal_ranks
from benchmarks.facts_study import SIZE, facts_study, stating
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
    masks = random_removals(SIZE.random_removals, n_train, 19)
    outputs = []
    for number, mask in enumerate(masks):
        log(f"  removal {number + 1} of {len(masks)}")
        outputs.append(outputs_with(study, mask.astype(float), tests)[0])
    true = stating(study)[tests]
    found: dict[str, Any] = {"replay_lds": {}, "replay_mrr": {}, "replay_recall_at_10": {}}
    for method, tau in scores.items():
        found["replay_lds"][method] = rounded_lds(tau, masks, np.stack(outputs))
        found["replay_mrr"][method] = mean_with_interval(reciprocal_ranks(tau, true))
        found["replay_recall_at_10"][method] = mean_with_interval(recalls(tau, true))
    found["replay_smoothness"] = round(
        smoothness(lambda weights: outputs_with(study, weights, tests)[0], n_train, 0), 3
    )
    found["replay_settings"] = {"questions": len(tests), "removals": len(masks), "share": SHARE}
    return found
