"""What a question's strongest supporters do to its answer: one more step on them, and training
without them; and the false statements behind wrong answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks._report import log
from benchmarks.clip_lds import mean_with_interval
from benchmarks.facts_study import FALSE, METHODS, SIZE, stating
from engine import Study
from engine.applications.live import load
from engine.build.models import load_checkpoint
from engine.build.retraining import NOTHING, removal_of, retrain, retrained
from engine.build.tasks import task_at
from engine.store.rows import evenly_spread
from engine.study.examples import read_stacked_arrays
from engine.tasks.sequences import log_likelihood
from engine.training.outputs import read_batch

STEP = 0.1
"""Learning rate of the step of tail-patch."""
CEILING = "ceiling"
"""Removal of all rows that state the fact of a question."""


def tail_patch(study: Study) -> dict[str, Any]:
    """Mean rise of the answers' log-probability by one step of gradient descent.

    For each question by itself, the first checkpoint takes one step on the mean loss of the rows
    that a method ranks first.
    """
    algorithm = next(iter(study.algorithms))
    model, task = load_checkpoint(study, algorithm, 0, "cpu"), task_at(study, algorithm, 0)
    arrays = {split: read_stacked_arrays(study, split) for split in ("train", "test")}
    encoding = study.dataset.encoding
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    tests = [
        read_batch(task, arrays["test"], np.array([test]), encoding, "cpu")
        for test in range(study.dataset.n_test)
    ]

    def answers() -> np.ndarray:
        with torch.no_grad():
            return np.array([float(log_likelihood(model, one)[0]) for one in tests])

    before, found = answers(), {}
    for name, scores in METHODS.items():
        log(f"  tail patch of {name}")
        rises = []
        for test, row in enumerate(scores()):
            batch = read_batch(task, arrays["train"], first(row), encoding, "cpu")
            model.zero_grad()
            task.loss(model, batch, 0.0).mean().backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.sub_(parameter.grad, alpha=STEP)
                rises.append(float(log_likelihood(model, tests[test])[0]) - before[test])
                for key, parameter in model.named_parameters():
                    parameter.copy_(start[key])
        found[name] = mean_with_interval(np.array(rises))
    return {
        "tail_patch": found,
        "tail_patch_ratio_vs_bm25": ratio(found),
        "tail_patch_settings": {"rows": SIZE.removed, "questions": len(tests), "rate": STEP},
    }


def qld(study: Study) -> dict[str, Any]:
    """Mean fall of the answers' log-odds without the rows that a method ranks first.

    The rows of `SIZE.together` questions are removed at once, so that a model serves several. The
    fall is against models with all data and the same seeds. `CEILING` removes every row that states
    the fact, however many these are; no method is told which they are.
    """
    algorithm = next(iter(study.algorithms))
    tests = evenly_spread(study.dataset.n_test, SIZE.questions)
    groups = np.array_split(
        np.random.default_rng(0).permutation(tests), -(-len(tests) // SIZE.together)
    )
    true = stating(study)
    lost = {name: np.array([first(row) for row in METHODS[name]()[tests]]) for name in SIZE.losing}
    of_question: dict[str, dict[int, np.ndarray]] = {
        name: dict(zip(tests.tolist(), rows, strict=True)) for name, rows in lost.items()
    }
    of_question[CEILING] = {test: np.flatnonzero(true[test]) for test in tests.tolist()}
    removals = {
        name: [
            removal_of(study, np.unique(np.concatenate([rows[t] for t in group])).tolist())
            for group in groups
        ]
        for name, rows in of_question.items()
    }
    wanted = [NOTHING, *(one for some in removals.values() for one in some)]
    retrain(study, algorithm, wanted, SIZE.seeds, on_done=_log)
    falls = {
        name: np.concatenate(
            [
                np.mean(
                    [
                        retrained(study, algorithm, NOTHING, seed).output[group]
                        - retrained(study, algorithm, removed, seed).output[group]
                        for seed in range(SIZE.seeds)
                    ],
                    axis=0,
                )
                for group, removed in zip(groups, some, strict=True)
            ]
        )
        for name, some in removals.items()
    }
    order = np.concatenate(groups)
    ceiling = falls.pop(CEILING)
    found = {name: mean_with_interval(some) for name, some in falls.items()}
    missed = np.array(
        [not np.isin(of_question[CEILING][test], of_question["bm25"][test]).all() for test in order]
    )
    kinds = study.table("test")["kind"].to_numpy()[order]
    parts = {kind: kinds == kind for kind in np.unique(kinds)}
    parts |= {"bm25 finds all statements": ~missed, "bm25 misses a statement": missed}
    return {
        "qld": found,
        "qld_ceiling": mean_with_interval(ceiling),
        "qld_share_of_ceiling": {
            name: round(float(some.mean() / ceiling.mean()), 3) for name, some in falls.items()
        },
        "qld_by_kind": {
            kind: {
                "questions": int(part.sum()),
                **{
                    name: round(float(some[part].mean()), 3)
                    for name, some in {**falls, CEILING: ceiling}.items()
                },
            }
            for kind, part in parts.items()
            if part.any()
        },
        "qld_ratio_vs_bm25": ratio(found),
        "qld_settings": {
            "rows": SIZE.removed,
            "questions": len(tests),
            "together": SIZE.together,
            "seeds": SIZE.seeds,
        },
    }


def first(scores: np.ndarray) -> np.ndarray:
    """The rows that are ranked first."""
    return np.argsort(-scores, kind="stable")[: SIZE.removed]


def ratio(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ours, by number of checkpoints, against BM25."""
    return {
        name: round(one["mean"] / found["bm25"]["mean"], 2)
        for name, one in found.items()
        if name.startswith("ours")
    }


def _log(_: object, done: int, total: int) -> None:
    if done % 20 == 0:
        log(f"  {done} of {total} models")


# --- false statements -----------------------------------------------------------------------------


def corrections(study: Study) -> dict[str, Any]:
    """Share of the wrong answers whose strongest supporter is a false statement of the fact.

    Wrong answers are those that training states falsely. What is explained is the wrong answer.
    """
    algorithm = next(iter(study.algorithms))
    loaded, arrays = load(study.root, algorithm), read_stacked_arrays(study, "test")
    train, test = study.table("train"), study.table("test")
    answers = study.predictions("test", algorithm)["predicted"].tolist()
    false = stating(study, (FALSE,))
    train_arrays = read_stacked_arrays(study, "train")
    found = []
    for question in np.flatnonzero(false.any(axis=1)).tolist():
        rows = np.flatnonzero(false[question])
        if answers[question] != train["target"][rows[0]]:
            continue
        # The question with the target of the false statement.
        asked = {
            name: (train_arrays if name.startswith("target") else arrays)[name][[place]]
            for name in arrays
            for place in [int(rows[0]) if name.startswith("target") else question]
        }
        best = int(np.argmax(loaded.scores(asked)[0]))
        found.append(bool(false[question, best]))
    return {
        "corrections_precision": round(float(np.mean(found)), 4) if found else None,
        "corrections": {
            "wrong_answers": len(found),
            "contradicted": int(false.any(axis=1).sum()),
            "questions": len(test),
        },
    }
