"""Fine-tuned transformers on texts: LDS, what removals do, speed, and the split over tokens.

    DATALOUPE_TEXTS=FOLDER python -m benchmarks.text --json [--save]

`benchmarks.text_study` says where texts and weights come from. Two studies are built, with models
on random halves of 2,000 sentences: a fine-tuned MiniLM, all 22 million parameters attributed
(`lds`), and a small BERT from scratch (`lds_small`), on which the other tools can run and models
can be retrained by the hundred: `ratio_vs_traker`, `ratio_vs_ekfac`, `qld` and
`brittle_verified_share` are the small one's. `modality_aware_files` counts the files outside the
tasks and the views that name classes, right and wrong answers, or a modality, by the rule of
tests/test_seam.py; *before* is the last commit without the task seam.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import log, report
from benchmarks._server import ROOT
from benchmarks.text_featurise import featurise
from benchmarks.text_lds import lds_of_others, lds_of_study
from benchmarks.text_removals import brittle_verified, qld
from benchmarks.text_study import minilm_study, small_study
from engine import Study
from engine.applications.live import load
from engine.applications.token_shares import token_shares
from engine.store.rows import evenly_spread
from engine.study.examples import read_stacked_arrays
from tests.test_seam import FREE, aware_names

TOKEN_TESTS, TOKEN_ROWS = 20, 10
AWARE_BEFORE = 97


def measure() -> dict[str, Any]:
    """All measurements; hours without the studies of an earlier run in `.bench/`."""
    minilm, small = minilm_study(), small_study()
    log("LDS")
    large, little = lds_of_study(minilm), lds_of_study(small)
    little["lds"] |= lds_of_others(small)
    ours = little["lds"]["ours"]["5"]["lds"]
    log("removals")
    return {
        **large,
        **{f"{name}_small": value for name, value in little.items()},
        "ratio_vs_traker": round(ours / little["lds"]["traker"]["5"]["lds"], 2),
        "ratio_vs_ekfac": round(ours / little["lds"]["ekfac"]["5"]["lds"], 2),
        **qld(small),
        **brittle_verified(small),
        "token_sum_max_rel_error": token_sum_error(small),
        **featurise(),
        "modality_aware_files": {"before": AWARE_BEFORE, "after": aware_files()},
    }


def token_sum_error(study: Study) -> float:
    """Largest difference of a score and the sum of its tokens' shares, relative to the strongest
    score of the test text.

    Scores are those of the checkpoints that are kept for live queries, as shares are.
    """
    algorithm = next(iter(study.algorithms))
    loaded, arrays = load(study.root, algorithm), read_stacked_arrays(study, "test")
    worst = 0.0
    for test in evenly_spread(study.dataset.n_test, TOKEN_TESTS).tolist():
        scores = loaded.scores({name: array[test : test + 1] for name, array in arrays.items()})[0]
        rows = np.argsort(-np.abs(scores), kind="stable")[:TOKEN_ROWS].tolist()
        found = token_shares(study, algorithm, test, rows)
        for shares, whole in ((found.train, found.train_whole), (found.test, found.test_whole)):
            sums = np.array([part.sum() for part in shares]) + whole
            worst = max(worst, float(np.abs(sums - scores[rows]).max() / np.abs(scores).max()))
    return worst


def aware_files() -> int:
    """Files outside the tasks and the views that name classes or a modality."""
    paths = [path for room in ("engine", "dashboard") for path in (ROOT / room).rglob("*.py")]
    return sum(bool(aware_names(path)) for path in paths if not _name(path).startswith(FREE))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT).with_suffix(""))


if __name__ == "__main__":
    report("text", measure, __doc__ or "")
