"""Pictures with captions: retrieval, LDS, what removals do, and the speed of features.

    python -m benchmarks.clip --json [--save]

The study is the example that ships, 3,177 + 601 emoji with their names, with a run bank of 80
masks. `recall_at.K` is the mean of both directions among all test pairs, by the mean cosines of
the checkpoints. `lds.METHOD.CHECKPOINTS` is of the alignment, on the test masks. *picture
embedding* and *caption embedding* are cosines of one tower, *embedding* their mean.
`fall.METHOD.K` is how far the cosine of a test pair falls when the K training pairs that a method
ranks first for it are removed, against models with all data and the same seeds. The removals train
1,805 models, which takes most of a day on two cores.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks._report import log, report
from benchmarks._study import built
from benchmarks.text_lds import gradient_cosine, rounded, scored
from engine import Study, store
from engine.attribution.trak.primal import primal_projection
from engine.attribution.trak.projection import features
from engine.build.batches import batches_of
from engine.build.models import load_checkpoint
from engine.build.retraining import NOTHING, model_without, removal_of
from engine.build.tasks import task_at, task_of
from engine.data.templates import spec_from_template
from engine.store import layout
from engine.store.layout import HYBRID, SPLITS, TRAK
from engine.store.rows import evenly_spread
from engine.study.examples import read_stacked_arrays
from engine.study.models import checkpoint_seed
from engine.study.retrieval import read_recall
from engine.study.score_matrices import stored_solver
from engine.tasks.contrastive import pairs

MASKS, CHECKPOINTS = 80, 10
COUNTS = (1, 5, 10)
REMOVED, TESTS, SEEDS = (10, 50, 100), 30, 5
ROUNDS, TIMED = 5, 512


def clip_study() -> Study:
    """The example with more checkpoints and a larger bank."""
    spec = spec_from_template("captions")
    spec = spec.replace("checkpoints = 5", f"checkpoints = {CHECKPOINTS}")
    return built("clip", spec.replace("masks = 40", f"masks = {MASKS}"))


def measure() -> dict[str, Any]:
    """All measurements."""
    study = clip_study()
    log("LDS")
    lds = lds_of(study)
    log("removals")
    falls = falls_of(study)
    return {
        **recall_of(study),
        **lds,
        **falls,
        **featurise(study),
        "settings": {"removed": REMOVED, "tests": TESTS, "seeds": SEEDS, "masks": MASKS},
    }


def recall_of(study: Study) -> dict[str, Any]:
    """`recall_at` in both directions and their mean."""
    found = {
        side: {str(k): round(value, 4) for k, value in recall.items()}
        for side, recall in read_recall(study).items()
    }
    mean = {k: round((found["caption"][k] + found["picture"][k]) / 2, 4) for k in found["caption"]}
    return {"recall_at": mean, "recall_of_sides": found}


# --- LDS ------------------------------------------------------------------------------------------


def lds_of(study: Study) -> dict[str, Any]:
    """LDS of our methods and of baselines, with the noise ceiling."""
    quality, test = study.quality(), study.bank(train=False).part("test")
    assert quality is not None
    points = {str(one.n): rounded(one.lds) for one in quality.checkpoints if one.n in COUNTS}
    most = str(CHECKPOINTS)
    found: dict[str, dict[str, Any]] = {
        "ours": points,
        "ours_thresholded": {most: rounded(quality.methods[TRAK].lds)},
        "hybrid": {most: rounded(quality.methods[HYBRID].lds)},
        "gradient_cosine": {"1": scored(gradient_cosine(study, 0), test)},
    }
    for name, part in TOWERS.items():
        found[name] = {most: scored(embedding_scores(study, part), test)}
    return {
        "lds": found,
        "lds_noise_ceiling": None if quality.ceiling is None else rounded(quality.ceiling),
        "test_masks": len(test),
    }


TOWERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "embedding": lambda both: both,
    "picture_embedding": lambda both: np.split(both, 2, axis=1)[0],
    "caption_embedding": lambda both: np.split(both, 2, axis=1)[1],
}


def embedding_scores(study: Study, part: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Mean cosine of embeddings over the checkpoints, `[n_test, n_train]`."""
    algorithm = next(iter(study.algorithms))
    total = np.zeros((study.dataset.n_test, study.dataset.n_train), np.float32)
    for checkpoint in range(study.checkpoints(algorithm)):
        units = []
        for split in SPLITS:
            path = layout.outputs_file(study.root, algorithm, checkpoint, split)
            rows = part(np.array(store.read_tensors(path)["embeddings"], np.float32))
            units.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        total += units[1] @ units[0].T
    return total


# --- removals -------------------------------------------------------------------------------------


def falls_of(study: Study) -> dict[str, Any]:
    """Mean fall of test pairs' cosines without their first K pairs, by method."""
    algorithm = next(iter(study.algorithms))
    tests = evenly_spread(study.dataset.n_test, TESTS)
    random = np.random.default_rng(0).normal(size=(TESTS, study.dataset.n_train))
    rankings = {
        "ours": study.scores(tests, algorithm, TRAK),
        "hybrid": study.scores(tests, algorithm, HYBRID),
        "embedding": embedding_scores(study, TOWERS["embedding"])[tests],
        "random": random,
    }
    before = [cosines(study, NOTHING, seed, tests) for seed in range(SEEDS)]
    found: dict[str, dict[str, Any]] = {}
    for name, scores in rankings.items():
        for k in REMOVED:
            falls = []
            for place, row in enumerate(scores):
                removed = removal_of(study, np.argsort(-row, kind="stable")[:k])
                log(f"{name}, {k} removed, pair {place + 1} of {TESTS}")
                after = [cosines(study, removed, seed, tests) for seed in range(SEEDS)]
                falls.append(
                    np.mean([b[place] - a[place] for b, a in zip(before, after, strict=True)])
                )
            error = float(np.std(falls, ddof=1) / np.sqrt(len(falls)))
            mean = float(np.mean(falls))
            found.setdefault(name, {})[str(k)] = {
                "fall": round(mean, 4),
                "standard_error": round(error, 4),
            }
    ratios = {
        str(k): round(found["ours"][str(k)]["fall"] / found["embedding"][str(k)]["fall"], 2)
        for k in REMOVED
    }
    return {"fall": found, "fall_ratio_vs_embedding": ratios}


@torch.no_grad()
def cosines(study: Study, removed: tuple[int, ...], seed: int, tests: np.ndarray) -> np.ndarray:
    """Cosines of some test pairs by model number `seed`, trained without `removed`."""
    from engine.training.outputs import read_batch

    algorithm = next(iter(study.algorithms))
    model = model_without(study, algorithm, removed, seed, "cpu")
    arrays = read_stacked_arrays(study, "test")
    batch = read_batch(task_of(study), arrays, tests, study.dataset.encoding, "cpu")
    found = pairs(model, batch)
    cosine: np.ndarray = (found.pictures * found.captions).sum(1).numpy()
    return cosine


# --- speed ----------------------------------------------------------------------------------------


def featurise(study: Study) -> dict[str, Any]:
    """Rate of features, relative to one forward and one full backward pass; medians of rounds."""
    algorithm = next(iter(study.algorithms))
    model = load_checkpoint(study, algorithm, 0, "cpu")
    output, spec = task_at(study, algorithm, 0).model_output, study.spec.trak
    batches = list(batches_of(study, "train", "cpu", spec.batch_size, 0, TIMED)())
    solver = replace(stored_solver(study, algorithm), width=spec.width, proj_dim=spec.proj_dim)
    projection = primal_projection(model, output, batches[0], solver, checkpoint_seed(study, 0))

    def bound() -> None:
        for batch in batches:
            model.zero_grad()
            output(model, batch).sum().backward()

    def ours() -> None:
        for _ in features(model, output, iter(batches), projection):
            pass

    times: dict[str, list[float]] = {"bound": [], "ours": []}
    for number in range(ROUNDS):
        order = [("bound", bound), ("ours", ours)]
        for name, run in order[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(some) for name, some in times.items()}
    return {
        "featurise_vs_bound": round(medians["bound"] / medians["ours"], 3),
        "pairs_a_second": {name: round(TIMED / one, 1) for name, one in medians.items()},
    }


if __name__ == "__main__":
    report("clip", measure, __doc__ or "")
