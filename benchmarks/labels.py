"""Does the review queue find wrong labels? Against cleanlab and against plain margins.

    DATALOUPE_CLOTHING=FOLDER python -m benchmarks.labels --json [--save]

Without the folder, the included pictures alone are measured.

5 % of the training labels are changed: each to any other class alike, or (`-confusion`) to classes
that a model confuses. `fashion` is the first 2,000 pictures of the included Fashion-MNIST,
`clothing` 2,000 phone photos of clothes at 32 × 32 from train.parquet of that folder (columns
`image` and `label`). Both have wrong labels of their own, which count as mistakes of every method.

- `ours` ranks as the product does (`engine.applications.curation`): margins in 14 subset runs on
  halves, half of which did not see a picture, and its neighbors in the embedding of one checkpoint.
  A study has both anyway, for its other figures.
- `cleanlab` 2.9 gets probabilities from two 5-fold cross-validations with the same recipe, which
  take as much training (8 models with all data), and counts with the best of its scores on the
  reported data (`get_label_quality_scores`: three methods, two of them adjusted, too).
- `margin` is that of the checkpoint, which was trained on all labels.

`average_precision.DATASET.METHOD` is the mean over the seeds, `ratio_vs_cleanlab.DATASET` ours over
cleanlab's. Intervals are from pictures drawn again: a bootstrap, the same pictures for all methods.
`at_planted_count` is precision, and so recall, of the first 100 in the ranking; `flagged` is that
of the labels that each tool marks as wrong by itself, `find_label_issues` for cleanlab. Our way to
rank was chosen on seed 0, which is not reported.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from benchmarks import labels_models as models
from benchmarks._report import log, report
from benchmarks.labels_models import Case, Noise
from engine.applications.curation.suspicion import (
    NEIGHBOURS,
    QUARTER,
    agreement,
    flag,
    looks_wrong,
    neighbour_log_odds,
    unseen_margins,
)
from engine.attribution.softmax import margins

CASES: dict[str, tuple[str, Noise, tuple[int, ...]]] = {
    "fashion": ("fashion", "uniform", (1,)),
    "fashion-confusion": ("fashion", "confusion", (1,)),
    "clothing": ("clothing", "uniform", (1,)),
}
"""Name → dataset, noise and seeds. A seed takes 3 (fashion) or 5 minutes (clothing) of one core."""
DRAWS = 2000
OURS, CLEANLAB, MARGIN = "ours", "cleanlab", "margin"
SCORES = (
    ("self_confidence", False),
    ("self_confidence", True),
    ("normalized_margin", False),
    ("normalized_margin", True),
    ("confidence_weighted_entropy", False),
)
"""Methods of cleanlab, and whether probabilities are adjusted by class."""


def measure() -> dict[str, Any]:
    """Average precisions, and what is flagged."""
    found: dict[str, Any] = {
        "average_precision": {},
        "interval_95": {},
        "ratio_vs_cleanlab": {},
        "ratio_interval_95": {},
        "at_planted_count": {},
        "flagged": {},
        "cleanlab_scores": {},
    }
    for name, (dataset, noise, seeds) in CASES.items():
        if dataset == "clothing" and not os.environ.get(models.CLOTHING):
            log(f"{name}: left out, because ${models.CLOTHING} is not set")
            continue
        for key, value in judge([models.plant(dataset, noise, seed) for seed in seeds]).items():
            found[key][name] = value
        log(f"{name}: {found['average_precision'][name]}")
    return found | {
        "masks": models.MASKS,
        "folds": models.FOLDS,
        "repeats": models.REPEATS,
        "train": models.N_TRAIN,
        "share_wrong": models.SHARE,
        "seeds": {name: list(seeds) for name, (_, _, seeds) in CASES.items()},
    }


def judge(cases: list[Case]) -> dict[str, Any]:
    """All figures of one dataset with one kind of noise."""
    rankings = [{**our_scores(case), **cleanlab_scores(case)} for case in cases]
    wrong = [case.wrong for case in cases]
    of_cleanlab = [name for name in rankings[0] if name.startswith(CLEANLAB)]
    precision = {
        name: [average_precision(w, one[name]) for w, one in zip(wrong, rankings, strict=True)]
        for name in rankings[0]
    }
    best = max(of_cleanlab, key=lambda name: float(np.mean(precision[name])))
    methods = {OURS: OURS, CLEANLAB: best, MARGIN: MARGIN}
    means = {name: float(np.mean(precision[method])) for name, method in methods.items()}
    drawn = redrawn(wrong, [[one[method] for method in methods.values()] for one in rankings])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    ends = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    flagged = [{**our_flags(case), **cleanlab_flags(case)} for case in cases]
    return {
        "average_precision": {name: round(value, 3) for name, value in means.items()},
        "interval_95": {
            name: [round(float(low[place]), 3), round(float(high[place]), 3)]
            for place, name in enumerate(methods)
        },
        "ratio_vs_cleanlab": round(means[OURS] / means[CLEANLAB], 3),
        "ratio_interval_95": [round(float(end), 3) for end in ends],
        "at_planted_count": {
            name: mean(at_count(w, one[method]) for w, one in zip(wrong, rankings, strict=True))
            for name, method in methods.items()
        },
        "flagged": {
            name: {
                "count": mean(float(one[name].sum()) for one in flagged),
                "precision": mean(
                    float(w[one[name]].mean()) for w, one in zip(wrong, flagged, strict=True)
                ),
                "recall": mean(
                    float(one[name][w].mean()) for w, one in zip(wrong, flagged, strict=True)
                ),
            }
            for name in (OURS, CLEANLAB)
        },
        "cleanlab_scores": {
            name.removeprefix(f"{CLEANLAB} "): round(float(np.mean(precision[name])), 3)
            for name in of_cleanlab
        },
    }


def redrawn(wrong: list[np.ndarray], scores: list[list[np.ndarray]]) -> np.ndarray:
    """Average precision of each method on pictures drawn again, mean over the seeds:
    `[DRAWS, methods]`."""
    generator = np.random.default_rng(5)
    found = np.zeros((DRAWS, len(scores[0])))
    for draw in found:
        for truth, of_methods in zip(wrong, scores, strict=True):
            rows = generator.integers(len(truth), size=len(truth))
            draw += [average_precision(truth[rows], one[rows]) / len(wrong) for one in of_methods]
    return found


def our_scores(case: Case) -> dict[str, np.ndarray]:
    """Larger for more suspicious labels: ours, and the margin of models that saw the picture."""
    unseen, _ = unseen_of(case)
    seen = models.checkpoints(case)
    near = nearest([one["train_embeddings"] for one in seen])
    near_ones = agreement(case.labels, case.labels, near)
    return {
        OURS: -(unseen + QUARTER * neighbour_log_odds(near_ones)),
        MARGIN: -np.mean([margins(one["train"], case.labels) for one in seen], axis=0),
    }


def nearest(embeddings: list[np.ndarray]) -> np.ndarray:
    """Rows of the nearest other examples by mean cosine, `[n, NEIGHBOURS]`."""
    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in embeddings]
    likeness = np.sum([unit @ unit.T for unit in units], axis=0)
    np.fill_diagonal(likeness, -np.inf)
    found: np.ndarray = np.argsort(-likeness, axis=1, kind="stable")[:, :NEIGHBOURS]
    return found


def our_flags(case: Case) -> dict[str, np.ndarray]:
    unseen, test = unseen_of(case)
    return {OURS: flag(looks_wrong(unseen, test), len(test))[0]}


def unseen_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Mean margins of the runs that did not see a picture, of both splits."""
    train, test = models.bank(case)
    labels = models.data(case.name).test["label"]
    found = unseen_margins(models.halves(case), margins(train, case.labels), margins(test, labels))
    return found.margin, found.test


def cleanlab_scores(case: Case) -> dict[str, np.ndarray]:
    """Larger for more suspicious labels, by each of cleanlab's scores."""
    from cleanlab.rank import get_label_quality_scores

    probabilities = models.cross_validated(case)
    return {
        f"{CLEANLAB} {method}{' adjusted' * adjust}": -get_label_quality_scores(
            case.labels, probabilities, method=method, adjust_pred_probs=adjust
        )
        for method, adjust in SCORES
    }


def cleanlab_flags(case: Case) -> dict[str, np.ndarray]:
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = find_label_issues(case.labels, models.cross_validated(case), n_jobs=1)
    return {CLEANLAB: np.asarray(found, bool)}


def average_precision(wrong: np.ndarray, scores: np.ndarray) -> float:
    """Mean over the wrong labels of the precision where each is found; ties in random order."""
    order = np.lexsort((np.random.default_rng(0).permutation(len(scores)), -scores))
    hits = wrong[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def at_count(wrong: np.ndarray, scores: np.ndarray) -> float:
    """Precision, and so recall, of as many as there are wrong labels."""
    return float(wrong[np.argsort(-scores, kind="stable")[: wrong.sum()]].mean())


def mean(values: Any) -> float:
    return round(float(np.mean(list(values))), 3)


if __name__ == "__main__":
    report("labels", measure, __doc__ or "")
