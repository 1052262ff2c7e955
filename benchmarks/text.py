"""Fine-tuned transformers on texts: LDS, what removals do, speed, and the split over tokens.

    DATALOUPE_TEXTS=FOLDER python -m benchmarks.text --json [--save]

`benchmarks.text_study` says where texts and weights come from. Three studies are built, each with
models on random halves of 2,000 sentences: a fine-tuned MiniLM, all 22 million parameters
attributed (`lds`); the same with only the last layer and the head trained (`lds_last`), on which
other tools can run and models can be retrained by the hundred, so that `ratio_vs_traker`,
`ratio_vs_ekfac`, `qld` and `brittle_verified_share` are of this one; and a small BERT from scratch
(`lds_small`). `modality_aware_files` counts the files outside the tasks and the views that name
classes, right and wrong answers, or a modality, by the rule of tests/test_seam.py; *before* is the
last commit without the task seam.

Each part takes minutes to hours. `DATALOUPE_TEXT_PARTS=last,others` runs some; results of the
others are kept in `.bench/text` and reported, too, each with its device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._parts import run_parts
from benchmarks._report import report
from benchmarks._server import ROOT
from benchmarks.text_featurise import featurise
from benchmarks.text_lds import lds_of_others, lds_of_study
from benchmarks.text_removals import brittle_verified, qld
from benchmarks.text_study import last_study, minilm_study, small_study
from engine import Study
from engine.applications.live import load
from engine.applications.token_shares import token_shares
from engine.store.rows import evenly_spread
from engine.study.examples import read_stacked_arrays
from tests.test_seam import FREE, aware_names

TOKEN_TESTS, TOKEN_ROWS = 20, 10
AWARE_BEFORE = 97


def measure() -> dict[str, Any]:
    """The parts that are asked for, and those measured before."""
    found = run_parts(ROOT / ".bench" / "text", PARTS, "DATALOUPE_TEXT_PARTS")
    if "lds_of_others" in found and "lds_last" in found:
        found["lds_last"] |= found.pop("lds_of_others")
        for other, settings in (("traker", ("traker", "traker_512")), ("ekfac", ("ekfac",))):
            found[f"ratio_vs_{other}"] = _ratios(found["lds_last"], settings)
    return found


def _ratios(lds: dict[str, Any], others: Sequence[str]) -> dict[str, float]:
    """LDS of ours by that of another tool, at the best of its settings, by checkpoints."""
    counts = {count for other in others for count in lds[other]}
    best = {n: max(lds[one][n]["lds"] for one in others if n in lds[one]) for n in sorted(counts)}
    return {n: round(lds["ours"][n]["lds"] / most, 2) for n, most in best.items()}


def _named(found: dict[str, Any], study: str) -> dict[str, Any]:
    return {f"{name}_{study}": value for name, value in found.items()}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "minilm": lambda: lds_of_study(minilm_study()),
    "last": lambda: _named(lds_of_study(last_study()), "last"),
    "others": lambda: {"lds_of_others": lds_of_others(last_study())},
    "small": lambda: _named(lds_of_study(small_study()), "small"),
    "qld": lambda: qld(last_study()),
    "brittle": lambda: brittle_verified(last_study()),
    "tokens": lambda: {"token_sum_max_rel_error": token_sum_error(last_study())},
    "featurise": featurise,
    "files": lambda: {"modality_aware_files": {"before": AWARE_BEFORE, "after": aware_files()}},
}
"""Name → its keys."""


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
