"""explain --exact: exact scores of one prediction or of a group, by replay of several models."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from engine.api import Study
from engine.applications.replay.answer import agreeing
from engine.applications.replay.removals import ExactChange
from engine.applications.replay.smoothness import measured_smoothness, smoothness_words
from engine.attribution.evaluation.counterfactual import Counterfactual
from engine.cli.printing import console, print_json, table
from engine.cli.progress import job_progress
from engine.store.errors import DataloupeError, SpecError, UnknownName
from engine.store.quantities import CHANGE, INFLUENCE
from engine.store.text import counted
from engine.study.capabilities import require
from engine.study.models import read_predictions
from engine.study.names import resolve_algorithm
from engine.study.nearest import did_you_mean
from engine.study.removal_sets import read_examples

SEEDS = 5
MEMORY_MIB = 1024


def add_exact(parser: argparse.ArgumentParser) -> None:
    """Add the options of `explain --exact`."""
    parser.add_argument(
        "--exact",
        action="store_true",
        help="compute the scores exactly, by differentiating through training: about the time of "
        "three trainings for each model; they are kept in the study",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help=f"models to average exact scores over (default: {SEEDS})",
    )
    parser.add_argument(
        "--memory",
        type=int,
        metavar="MIB",
        help=f"memory of each model's exact scores (default: {MEMORY_MIB})",
    )


def check_options(options: argparse.Namespace) -> None:
    """Raise SpecError for options that do not go together."""
    if not options.exact:
        if options.mistakes is not None:
            raise SpecError("--mistakes is for exact scores: use it with --exact.")
        for name in ("seeds", "memory"):
            if getattr(options, name) is not None:
                raise SpecError(f"--{name} is for exact scores: use it with --exact.")
        return
    for name, what in (
        ("train", "test examples: use it with --test or --mistakes"),
        ("output", "the stored output: leave out --output"),
        ("method", "no estimate: leave out --method"),
    ):
        if getattr(options, name) is not None:
            raise SpecError(f"--exact is for {what}.")
    for name in ("seeds", "memory", "k"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise SpecError(f"--{name} is {value}; it must be 1 or more.")


def exact_content(study: Study, changes: list[ExactChange]) -> list[dict[str, Any]]:
    """Exact changes as JSON holds them."""
    ids = study.table("test")["id"]
    return [{"row": one.test, "id": str(ids.iloc[one.test]), **_numbers(one)} for one in changes]


def _numbers(one: ExactChange) -> dict[str, Any]:
    return {**vars(one.change), "models": one.models, "agreeing": one.agreeing}


def print_exact_changes(
    shown: Console, study: Study, found: Counterfactual, changes: list[ExactChange]
) -> None:
    """Print what a removal does to the predictions with exact scores, beside the estimate."""
    if not changes:
        return
    tests = study.table("test")[["id", "label"]]
    estimate = "estimate" if found.calibrated else "sum of scores"
    listed = table("id", "label", f"exact change of the {found.output}", "models", estimate)
    for one in changes:
        id_, label = tests.iloc[one.test]
        change = CHANGE.interval(one.change)
        verb = "falls" if one.change.mean < 0 else "rises"
        models = f"{verb} in {one.agreeing} of {counted(one.models, 'model')}"
        listed.add_row(str(id_), str(label), change, models, CHANGE.text(found.change[one.test]))
    shown.print("\nBy replay, where exact scores are kept (least and most of the models):")
    shown.print(listed)
    if words := smoothness_words(study, found.algorithm):
        shown.print(words, soft_wrap=True)


def _rows(study: Study, algorithm: str, options: argparse.Namespace) -> np.ndarray:
    """Test rows that are asked about, one or a group."""
    if options.test is not None:
        return np.unique(read_examples(study, options.test, "test"))
    require(study, "outcomes", "Mistakes")
    labels = study.table("test")["label"].astype(str)
    known = sorted(set(labels))
    if options.mistakes not in known:
        raise UnknownName(
            f"No test example is of the class {options.mistakes!r}.",
            did_you_mean(options.mistakes, known),
        )
    wrong = ~read_predictions(study, "test", algorithm)["correct"].to_numpy(bool)
    rows = np.flatnonzero(wrong & (labels == options.mistakes).to_numpy())
    if not len(rows):
        raise DataloupeError(f"{algorithm} predicts all test examples of {options.mistakes} right.")
    return rows


def explain_exactly(study: Study, options: argparse.Namespace) -> int:
    """Replay the models if needed, and print the strongest training examples of each sign."""
    algorithm = resolve_algorithm(study, options.algorithm)
    rows = _rows(study, algorithm, options)
    one_prediction = len(rows) == 1
    seeds = range(SEEDS if options.seeds is None else options.seeds)
    memory = MEMORY_MIB if options.memory is None else options.memory
    with job_progress("Replay", console(stderr=True)) as report:
        scores = study.replay(
            rows,
            algorithm,
            seeds,
            weights=None if one_prediction else np.full((1, len(rows)), 1 / len(rows)),
            memory_mib=memory,
            on_done=lambda done, total: report(done, total, "models"),
        )[:, 0]
        smoothness = measured_smoothness(study, algorithm)
    mean = scores.mean(axis=0, dtype=np.float64)
    order = np.argsort(-mean, kind="stable")
    sides = {
        "supporting": [one for one in order[: options.k] if mean[one] > 0],
        "opposing": [one for one in order[::-1][: options.k] if mean[one] < 0],
    }
    training, tests = study.table("train"), study.table("test").iloc[rows]
    ids, labels = (tests[name].astype(str).tolist() for name in ("id", "label"))
    agree = agreeing(scores)
    if options.json:
        asked: dict[str, Any] = {"rows": rows.tolist(), "ids": ids}
        if one_prediction:
            asked = {"row": int(rows[0]), "id": ids[0], "label": labels[0]}
        content = {
            **asked,
            "algorithm": algorithm,
            "output": study.dataset.output,
            "models": len(seeds),
            "smoothness": smoothness.value,
            "smoother_with": [] if smoothness.smooth else list(smoothness.levers),
        }
        for name, side in sides.items():
            content[name] = [
                {
                    "row": int(one),
                    "id": str(training["id"].iloc[one]),
                    "label": str(training["label"].iloc[one]),
                    "score": float(mean[one]),
                    "of_models": [float(score) for score in scores[:, one]],
                    "agreeing": int(agree[one]),
                }
                for one in side
            ]
        print_json(content)
        return 0
    shown = console()
    output, which = (
        study.dataset.output,
        Text.assemble((ids[0], "bold"), " is ", (labels[0], "bold")),
    )
    if not one_prediction:
        output = f"mean {output}"
        which = Text(f"The {output} of {counted(len(rows), 'test example')}", style="bold")
        if options.mistakes is not None:
            which.append(f" of {options.mistakes}, all predicted wrong")
    shown.print(
        which,
        Text(f"Exact scores, mean of {counted(len(seeds), 'model')} of {algorithm}"),
        Text(smoothness_words(study, algorithm)),
        *(Text(f"Smoother with {one}") for one in smoothness.levers if not smoothness.smooth),
        sep="\n",
    )
    for title, verb, name in (
        (f"Supporting: without it the {output} falls by about its score", "helps", "supporting"),
        (f"Opposing: without it the {output} rises by about its score", "hurts", "opposing"),
    ):
        shown.print(f"\n{title}")
        listed = table("", "id", "label", "score", "models")
        for rank, one in enumerate(sides[name], 1):
            example = training.iloc[one]
            models = f"{verb} in {agree[one]} of {counted(len(seeds), 'model')}"
            listed.add_row(
                str(rank),
                str(example["id"]),
                str(example["label"]),
                INFLUENCE.text(mean[one]),
                models,
            )
        shown.print(listed)
    return 0
