"""An audit for synthetic studies: the models' logits are random, and are judged as in any audit.

Everything that the audit would train is written first, so it trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine import store
from engine.api import Study
from engine.applications.unlearning.audit import audit
from engine.applications.unlearning.audit_record import Audit
from engine.applications.unlearning.cost import retraining_cost
from engine.applications.unlearning.method_jobs import method_job
from engine.applications.unlearning.oracles import oracle_file
from engine.applications.unlearning.rows import Rows, forget_set, own_of, rows_of
from engine.applications.unlearning.settings import UNCHANGED, Hyper
from engine.applications.unlearning.unlearned import unlearned_file
from engine.build.retraining import NOTHING, model_file, weights_file

NEAR = {UNCHANGED: 0.0, "scrub": 0.8, "finetune": 0.15, "both": 0.55}
"""Methods, and how far each moves the originals toward the oracles."""
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
        harm: How far methods move the logits of the retain set and the test set.
    """
    removed = forget_set(study, forget)
    rows, generator = rows_of(study, removed), np.random.default_rng(seed)
    for number in range(models):
        write(weights_file(study, algorithm, number), {"weight": np.zeros(1, np.float32)})
        write(model_file(study, algorithm, NOTHING, number), {"margin": np.zeros(1, np.float32)})
        write(
            oracle_file(study, algorithm, removed, number),
            _logits(study, rows, 1.0, 0.0, generator),
        )
        for method, near in NEAR.items():
            job = method_job(study, algorithm, removed, removed, method, BUDGET, "cpu", models)
            moved = harm if method != UNCHANGED else 0.0
            logits = _logits(study, rows, near, moved, generator)
            spent = 0 if method == UNCHANGED else round(BUDGET * retraining_cost(study, algorithm))
            cost = {"cost": np.array([spent, 0], np.int64)}
            write(unlearned_file(study, replace(job, seed=number)), logits | cost)
    return audit(
        study,
        removed,
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


def _logits(
    study: Study, rows: Rows, near: float, moved: float, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """A model's logits: higher for examples that it was trained on and did not forget."""
    of_train = np.isin(rows.all, rows.forget)
    sure = np.where(of_train, 4 - 3 * near, 4.0) - np.where(of_train, 0, moved)
    parts = (
        ("train_logits", own_of(study, rows.all), sure),
        ("test_logits", own_of(study), np.full(study.dataset.n_test, 1.5 - moved)),
    )
    found = {"rows": rows.all}
    for name, labels, mean in parts:
        logits = generator.normal(size=(len(labels), len(study.dataset.classes)))
        logits[np.arange(len(labels)), labels] += mean
        found[name] = logits.astype(np.float32)
    return found
