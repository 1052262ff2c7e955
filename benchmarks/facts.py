"""Facts about countries: does attribution find the statements that an answer comes from?

    DATALOUPE_FACTS_PARTS=answers,retrieval python -m benchmarks.facts --json [--save]

The study is the example that ships (`dataloupe demo --example facts`), whose questions are asked in
ways that no statement has, with a larger run bank. Which training rows state a fact is known. Each
part can be run alone, in any order; results of the others are kept in `.bench/facts` and reported,
too, each with its device. `DATALOUPE_FACTS_SIZE` is `whole`, `short` or `tiny` (whether every part
runs).

Methods are `ours_N` (TRAK of N checkpoints), `hybrid`, `bm25` (sources and targets, the answer
included), `bm25_source`, `embedding` (mean cosine of the checkpoints), `gradient_cosine` (one
checkpoint), `traker_1` (traker of one checkpoint) and `random`. bergson 2.5.1 is not among them: it
loads models by `AutoModelForCausalLM` only, and the example is an encoder and a decoder.

- `exact_match`: share of the questions that the checkpoints together answer right, and by kind and
  relation.
- `mrr.METHOD`, `recall_at_10.METHOD`: of the rows that state the fact of a question, over all
  questions (`benchmarks.facts_measures`), and in `mrr_by_kind` by kind of question.
- `tail_patch.METHOD`: rise of the answer's log-probability by one step on the first 5 rows.
- `qld.METHOD`: fall of the answer's log-odds without the first 5 rows, when trained again.
  `qld_ceiling`: without all rows that state the fact, which nobody ranks; `qld_share_of_ceiling`,
  and `qld_by_kind` of question, also by whether BM25's first 5 hold all statements.
- `lds.METHOD.CHECKPOINTS` of the log-odds, on `test_masks` masks with two runs each: see
  `benchmarks.facts_lds`. `ours` has no soft threshold, `ours_thresholded` is what the study shows.
  `lds_ratio_vs_best_peer` compares both, and the hybrid, with the best of the others.
- `corrections_precision`: see `benchmarks.facts_removals.corrections`.
- `token_sum_max_rel_error`: as in `benchmarks.text`.
- `featurise_vs_bound`: as in `benchmarks.clip`.
- `replay_lds`, `replay_mrr`, `replay_recall_at_10`, `replay_smoothness`: see
  `benchmarks.facts_replay`.

Intervals are 95 %, over questions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._parts import run_parts
from benchmarks._report import report
from benchmarks._speed import features_vs_bound
from benchmarks.clip_lds import mean_with_interval
from benchmarks.facts_lds import lds_of
from benchmarks.facts_measures import recalls, reciprocal_ranks
from benchmarks.facts_removals import corrections, qld, ratio, tail_patch
from benchmarks.facts_replay import replay
from benchmarks.facts_study import METHODS, SIZE, facts_study, folder, stating
from benchmarks.text import token_sum_error
from engine import Study


def measure() -> dict[str, Any]:
    """The parts that are asked for, and those measured before."""
    return run_parts(folder(), PARTS, "DATALOUPE_FACTS_PARTS")


def answers(study: Study) -> dict[str, Any]:
    """`exact_match`, of all questions and by their kind and relation."""
    right = study.predictions("test")["correct"].to_numpy().astype(float)
    table = study.table("test")
    groups = {
        str(value): round(float(right[(table[column] == value).to_numpy()].mean()), 4)
        for column in ("kind", "relation")
        for value in sorted(table[column].unique())
    }
    return {"exact_match": round(float(right.mean()), 4), "exact_match_of": groups}


def retrieval(study: Study) -> dict[str, Any]:
    """MRR and recall of the rows that state a question's fact."""
    true, kinds = stating(study), study.table("test")["kind"].to_numpy()
    ranks, shares = {}, {}
    for name, scores in METHODS.items():
        tau = scores()
        ranks[name], shares[name] = reciprocal_ranks(tau, true), recalls(tau, true)
    mrr = {name: mean_with_interval(one) for name, one in ranks.items()}
    return {
        "mrr": mrr,
        "recall_at_10": {name: mean_with_interval(one) for name, one in shares.items()},
        "mrr_by_kind": {
            name: {kind: round(float(one[kinds == kind].mean()), 4) for kind in np.unique(kinds)}
            for name, one in ranks.items()
        },
        "mrr_ratio_vs_bm25": ratio(mrr),
        "questions": len(true),
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "answers": lambda: answers(facts_study()),
    "retrieval": lambda: retrieval(facts_study()),
    "lds": lambda: lds_of(facts_study()),
    "corrections": lambda: corrections(facts_study()),
    "tokens": lambda: {"token_sum_max_rel_error": token_sum_error(facts_study())},
    "featurise": lambda: features_vs_bound(facts_study(), SIZE.timed),
    "tail_patch": lambda: tail_patch(facts_study()),
    "qld": lambda: qld(facts_study()),
    "replay": replay,
}
"""Name → its keys."""


if __name__ == "__main__":
    report("facts", measure, __doc__ or "")
