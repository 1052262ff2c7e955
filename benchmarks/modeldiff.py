"""Does ModelDiff match the reference library, find only planted differences, and fit in memory?

- *Parity*: comparison with directions, projections and variances of `residual_pca` of
  MadryLab/modeldiff (its formulas in NumPy with scikit-learn's PCA, because the package needs a
  GPU), on TRAK scores of the planted study.
- *Matrix-free*: synthetic low-rank features of two algorithms for 500,000 training and 10,000 test
  examples on disk, in a separate process.
- *Planted*: precision of the training pictures with the largest weights in the first direction.
- *False positives*: 20 splits of ten checkpoints of one algorithm into halves, each compared like
  two algorithms.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import log, report
from benchmarks.judging_modeldiff import Simulated, judge
from benchmarks.scaling import memory_mib
from engine.api import Study
from engine.applications.modeldiff.checkpoint_scores import sum_of_checkpoints
from engine.applications.modeldiff.comparison import compare, read_comparison, side
from engine.applications.modeldiff.hypothesis import try_all
from engine.applications.modeldiff.residuals import directions, residuals
from engine.applications.modeldiff.significance import LEVEL, p_values
from engine.attribution.scores.dense import DenseScores
from engine.attribution.scores.factors import FactorScores
from engine.store import read_tensors, write_tensors

K = 5
CHECKPOINTS, SPLITS = 10, 20
N_TRAIN, N_TEST, WIDTH, SHARD = 500_000, 10_000, 256, 5_000


def measure() -> dict[str, Any]:
    from tests.builders.planted_shortcut import carries, write_planted

    with tempfile.TemporaryDirectory(prefix="dataloupe-modeldiff-") as name:
        folder = Path(name)
        log("building the planted study")
        study = write_planted(folder / "study", checkpoints=CHECKPOINTS)
        study.build(workers=1)
        patched = carries(study)
        log("comparing")
        start = time.perf_counter()
        sides = side(study, "sees"), side(study, "covered")
        found = read_comparison(study, compare(study, *sides, K))
        seconds = time.perf_counter() - start
        first = found["directions"]["a"][0]
        rows = np.flatnonzero(~patched["test"]).tolist()
        options = {"patch": {"kind": "plain"}}
        ranked = try_all(study, "sees", "covered", rows=rows, options=options)
        result = {
            "parity_max_rel_diff": parity(study),
            "planted_precision_at_50": float(patched["train"][first["positive"]].mean()),
            "planted_direction_p": first["p"],
            "planted_variances": [first["own_variance"], first["other_variance"]],
            "compare_seconds": round(seconds, 1),
            "tried_first": ranked[0].name,
            "tried_first_p": min(p for p in ranked[0].adjusted if p is not None),
            **false_positives(study),
        }
        log("writing features of half a million examples")
        write_features(folder)
        out = subprocess.run(
            [sys.executable, "-m", "benchmarks.modeldiff", "--large", name],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return {**result, "matrix_free": json.loads(out), "dense_max_rel_diff": against_dense()}


def parity(study: Study) -> float:
    """Largest relative difference from the library's own results, in its convention."""
    from sklearn.decomposition import PCA

    tests = np.arange(study.dataset.n_test)
    a, b = (study.scores(tests, name) for name in ("sees", "covered"))
    coefficients = np.multiply(a, b).sum(axis=1) / np.multiply(b, b).sum(axis=1)
    pca = PCA(n_components=K, svd_solver="full")
    theirs = pca.fit_transform(a - np.multiply(coefficients.reshape(-1, 1), b))
    found = directions(residuals(DenseScores([a]), DenseScores([b]), normalise=False), K)
    signs = np.sign((found.weights * pca.components_).sum(axis=1))

    def variance(x: np.ndarray) -> np.ndarray:
        x = x / np.linalg.norm(x, axis=1)[:, None]
        along = (x - x.mean(axis=0)) @ pca.components_.T
        return np.asarray(np.multiply(along, along).sum(axis=0) / len(x))

    pairs = [
        (found.weights * signs[:, None], pca.components_),
        (found.projections * signs, theirs),
        (found.variance_a, variance(a)),
        (found.variance_b, variance(b)),
    ]
    return max(float(np.abs(o - w).max() / np.abs(w).max()) for o, w in pairs)


def false_positives(study: Study) -> dict[str, Any]:
    """Share of significant results when halves of one algorithm are compared."""
    each = [sum_of_checkpoints(study, "sees", {m: 1.0}) for m in range(CHECKPOINTS)]
    scores = np.stack([one.rows(np.arange(one.n_test)) for one in each])
    significant = 0
    rng = np.random.default_rng(0)
    for number in range(SPLITS):
        a, b = (Simulated(scores[half]) for half in np.split(rng.permutation(CHECKPOINTS), 2))
        judged = judge(a, b)
        for gaps, of_a in zip(judged.gaps, (True, False), strict=True):
            significant += int((p_values(gaps, judged.null, of_a) < LEVEL).any())
        log(f"split {number + 1} of {SPLITS}: {significant} significant so far")
    return {"false_positive_share": significant / (2 * SPLITS), "splits": SPLITS}


# --- larger than memory -----------------------------------------------------------------------


def write_features(folder: Path) -> None:
    """Write low-rank features of two algorithms: a shared part, and a separate part of each."""
    fading = (np.arange(1, WIDTH + 1) ** -0.5).astype(np.float32)
    for number, name in enumerate(("a", "b")):
        for shard in range(N_TRAIN // SHARD):
            shared, own = np.random.default_rng(shard), np.random.default_rng([number, shard])
            features = shared.standard_normal((SHARD, WIDTH), dtype=np.float32)
            features += 0.5 * own.standard_normal((SHARD, WIDTH), dtype=np.float32)
            path = folder / f"{name}-{shard:05d}.safetensors"
            write_tensors(path, {"features": features * fading}, "")
        rng = np.random.default_rng(7)
        factors = rng.standard_normal((N_TEST, WIDTH), dtype=np.float32) * fading
        write_tensors(folder / f"{name}-factors.safetensors", {"factors": factors}, "")


def open_scores(folder: Path, name: str) -> FactorScores:
    shards = range(N_TRAIN // SHARD)
    files = [folder / f"{name}-{shard:05d}.safetensors" for shard in shards]
    return FactorScores(
        features=[[read_tensors(file)["features"] for file in files]],
        factors=[read_tensors(folder / f"{name}-factors.safetensors")["factors"]],
        out_to_loss=np.random.default_rng(0).random(N_TRAIN, dtype=np.float32),
    )


def large(folder: Path) -> dict[str, Any]:
    """Compare both ways in the large case; seconds and peak memory of this process."""
    a, b = open_scores(folder, "a"), open_scores(folder, "b")
    start = time.perf_counter()
    for one, other in ((a, b), (b, a)):
        directions(residuals(one, other), K)
    return {
        "n_train": N_TRAIN,
        "n_test": N_TEST,
        "features": WIDTH,
        "both_ways_seconds": round(time.perf_counter() - start, 1),
        "peak_mib": round(memory_mib("VmHWM")),
    }


def against_dense() -> float:
    """Largest relative error of variances from factors, on a small case with a dense matrix."""
    rng = np.random.default_rng(1)
    sides = [
        FactorScores(
            [[rng.standard_normal((800, 24), dtype=np.float32)]],
            [rng.standard_normal((300, 24), dtype=np.float32)],
            rng.random(800, dtype=np.float32),
        )
        for _ in range(2)
    ]
    a, b = (one.rows(np.arange(300)).astype(np.float64) for one in sides)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    rest = a - ((a * b).sum(1) / (b * b).sum(1))[:, None] * b
    wanted: np.ndarray = np.linalg.svd(rest - rest.mean(0), compute_uv=False)[:K] ** 2 / 300
    found = directions(residuals(sides[0], sides[1]), K).variance
    return float(np.abs(found / wanted - 1).max())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--large"]:
        print(json.dumps(large(Path(sys.argv[2]))))
    else:
        report("modeldiff", measure, __doc__ or "")
