"""LDS of every method on the study of facts, over more test masks than its own run bank has.

The masks are the next ones that a larger bank would draw for its test part. Nothing is fitted to
them, so scores are those of the example as it ships. Finished runs are kept and never repeated.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks._report import log
from benchmarks.facts_study import METHODS, MOST, PEERS, SIZE
from benchmarks.text_lds import rounded, scored
from engine import Study, store
from engine.attribution.datamodels.run_bank import RunBank, draw_mask
from engine.attribution.evaluation.ceiling import RepeatedRuns, noise_ceiling
from engine.build.stages.bank import Job, run_fingerprint, train_run
from engine.build.stages.quality import by_checkpoints
from engine.running import processes
from engine.store import layout
from engine.store.spec import PARTS
from engine.study.lock import locked


def lds_of(study: Study) -> dict[str, Any]:
    """LDS of our methods and of simpler ones, with the noise ceiling."""
    algorithm = next(iter(study.algorithms))
    test, repeated = truth(study, algorithm, SIZE.test_masks)
    found: dict[str, dict[str, Any]] = {
        "ours": {
            str(one.n): rounded(one.lds)
            for one in by_checkpoints(study, algorithm, test)
            if one.n in SIZE.checkpoints
        },
        "ours_thresholded": {str(MOST): scored(METHODS[f"ours_{MOST}"](), test)},
    }
    for name in ("gradient_cosine", "traker_1"):
        found[name] = {"1": scored(METHODS[name](), test)}
    for name in ("hybrid", "bm25", "bm25_source", "embedding", "random"):
        found[name] = {str(MOST): scored(METHODS[name](), test)}
    best = max(of["lds"] for name in PEERS for of in found[name].values())
    ceiling = noise_ceiling(repeated)
    return {
        "lds": found,
        "lds_ratio_vs_best_peer": {
            **{count: round(of["lds"] / best, 2) for count, of in found["ours"].items()},
            **{
                name: round(found[name][str(MOST)]["lds"] / best, 2)
                for name in ("ours_thresholded", "hybrid")
            },
        },
        "lds_noise_ceiling": None if ceiling is None else rounded(ceiling),
        "test_masks": len(test),
        "test_runs": int(test.seeds.sum()),
    }


def truth(study: Study, algorithm: str, count: int) -> tuple[RunBank, RepeatedRuns]:
    """The first test masks, with the mean outputs of their runs and how these differ."""
    numbers = _test_numbers(count)
    runs = [
        (number, seed) for number in numbers for seed in range(study.spec.subset_runs.test_seeds)
    ]
    missing = [run for run in runs if not layout.run_file(study.root, algorithm, *run).exists()]
    if missing:
        log(f"  {len(missing)} of {len(runs)} runs on test masks are missing")
        device = processes.pick_device("auto")
        jobs = [Job(study.root, algorithm, *run, device) for run in missing]
        with locked(study):
            processes.run_jobs(
                train_run, jobs, processes.default_workers(device), lambda job, result: None
            )
    outputs = np.array(
        [
            store.read_tensors(
                layout.run_file(study.root, algorithm, *run),
                run_fingerprint(study, algorithm, *run),
            )["test"]
            for run in runs
        ]
    ).reshape(len(numbers), -1, study.dataset.n_test)
    mean = outputs.mean(axis=1, dtype=np.float64)
    squares = np.square(outputs - mean[:, None]).sum(axis=1)
    seeds = np.full(len(numbers), outputs.shape[1], np.int64)
    spec, n_train = study.spec, study.dataset.n_train
    masks = [draw_mask(spec.seed, number, n_train, spec.subset_runs.alpha) for number in numbers]
    bank = RunBank(np.stack(masks), None, mean.astype(np.float32), seeds, np.array(numbers))
    return bank, RepeatedRuns(bank.test, squares, seeds)


def _test_numbers(count: int) -> list[int]:
    """Numbers of the first masks that belong to the test part."""
    places = (place for place, part in enumerate(PARTS) if part == "test")
    return sorted(place + len(PARTS) * turn for place in places for turn in range(count))[:count]
