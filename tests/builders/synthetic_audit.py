"""An audit for synthetic studies: models' logits are drawn, and judged as any audit judges them.

Whatever an audit would train is written before it is asked, so it trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine import store
from engine.api import Study
from engine.applications.unlearning.audit import NOTHING, Audit, audit, retraining_cost, template_of
from engine.applications.unlearning.models import oracle_file, original_file, unlearned_file
from engine.applications.unlearning.requests import Rows, forget_set, labels_of, rows_of
from engine.applications.unlearning.settings import Hyper

NEAR = {NOTHING: 0.0, "scrub": 0.8, "finetune": 0.15, "both": 0.55}
"""Methods, and how far each comes from doing nothing to what the oracles say."""
BUDGET = 0.05


def write_audit(
    study: Study,
    forget: Sequence[int],
    models: int = 20,
    algorithm: str = "cnn",
    harm: float = 0.0,
    seed: int = 0,
) -> Audit:
    """Judge these methods on drawn logits.

    Args:
        forget: Training rows.
        harm: How far methods move what is kept, in logits.
    """
    asked = forget_set(study, forget)
    rows, generator = rows_of(study, asked), np.random.default_rng(seed)
    for number in range(models):
        write(original_file(study, algorithm, number), {"weight": np.zeros(1, np.float32)})
        write(
            oracle_file(study, algorithm, asked, asked, number),
            _said(study, rows, 1.0, 0.0, generator),
        )
        for method, near in NEAR.items():
            job = template_of(study, algorithm, asked, asked, method, BUDGET, "cpu", models)
            moved = harm if method != NOTHING else 0.0
            said = _said(study, rows, near, moved, generator)
            spent = 0 if method == NOTHING else round(BUDGET * retraining_cost(study, algorithm))
            cost = {"cost": np.array([spent, 0], np.int64)}
            write(unlearned_file(study, replace(job, seed=number)), said | cost)
    return audit(
        study,
        asked,
        methods=list(NEAR),
        models=models,
        budget=BUDGET,
        algorithm=algorithm,
        hyper=dict.fromkeys(NEAR, Hyper()),
        device="cpu",
        workers=0,
    )


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A shard that carries the fingerprint of its folder, as a model's does."""
    store.write_tensors(path, arrays, path.parent.name)


def _said(
    study: Study, rows: Rows, near: float, moved: float, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Logits of a model: sure of what it was trained on, less so of what it forgot or never saw."""
    of_train = np.isin(rows.all, rows.forget)
    sure = np.where(of_train, 4 - 3 * near, 4.0) - np.where(of_train, 0, moved)
    parts = (
        ("train", labels_of(study, rows.all), sure),
        ("test", labels_of(study), np.full(study.dataset.n_test, 1.5 - moved)),
    )
    found = {}
    for name, labels, mean in parts:
        logits = generator.normal(size=(len(labels), len(study.dataset.classes)))
        logits[np.arange(len(labels)), labels] += mean
        found[name] = logits.astype(np.float32)
    return found
