"""explain --exact: the exact scores of one prediction, by replay of several models."""

from __future__ import annotations

import argparse

import numpy as np
from rich.text import Text

from engine.api import Study
from engine.applications.replay.smoothness import measured_smoothness
from engine.cli.printing import console, print_json, table
from engine.cli.progress import job_progress
from engine.store.errors import SpecError
from engine.store.quantities import INFLUENCE, SMOOTHNESS
from engine.store.text import counted
from engine.study.names import resolve_algorithm, resolve_row

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
        for name in ("seeds", "memory"):
            if getattr(options, name) is not None:
                raise SpecError(f"--{name} is for exact scores: use it with --exact.")
        return
    for name, what in (
        ("train", "test examples: use it with --test"),
        ("output", "the stored output: leave out --output"),
        ("method", "no estimate: leave out --method"),
    ):
        if getattr(options, name) is not None:
            raise SpecError(f"--exact is for {what}.")
    for name in ("seeds", "memory", "k"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise SpecError(f"--{name} is {value}; it must be 1 or more.")


def explain_exactly(study: Study, options: argparse.Namespace) -> int:
    """Replay the models if needed, and print the strongest training examples of each sign."""
    row = resolve_row(study, "test", options.test)
    algorithm = resolve_algorithm(study, options.algorithm)
    seeds = range(SEEDS if options.seeds is None else options.seeds)
    memory = MEMORY_MIB if options.memory is None else options.memory
    with job_progress("Replay", console(stderr=True)) as report:
        scores = study.replay(
            [row],
            algorithm,
            seeds,
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
    training, test = study.table("train"), study.table("test").iloc[row]
    agreeing = {  # models in which an example has the sign of its mean
        int(one): int((np.sign(scores[:, one]) == np.sign(mean[one])).sum())
        for side in sides.values()
        for one in side
    }
    if options.json:
        content = {
            "row": row,
            "id": str(test["id"]),
            "label": str(test["label"]),
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
                    "agreeing": agreeing[int(one)],
                }
                for one in side
            ]
        print_json(content)
        return 0
    shown = console()
    shown.print(
        Text.assemble((str(test["id"]), "bold"), " is ", (str(test["label"]), "bold")),
        Text(f"Exact scores, mean of {counted(len(seeds), 'model')} of {algorithm}"),
        Text(f"Smoothness {SMOOTHNESS.text(smoothness.value)}. {smoothness.words}"),
        *(Text(f"Smoother with {one}") for one in smoothness.levers if not smoothness.smooth),
        sep="\n",
    )
    output = study.dataset.output
    for title, verb, name in (
        (f"Supporting: without it the {output} falls by about its score", "helps", "supporting"),
        (f"Opposing: without it the {output} rises by about its score", "hurts", "opposing"),
    ):
        shown.print(f"\n{title}")
        listed = table("", "id", "label", "score", "models")
        for rank, one in enumerate(sides[name], 1):
            example = training.iloc[one]
            models = f"{verb} in {agreeing[int(one)]} of {counted(len(seeds), 'model')}"
            listed.add_row(
                str(rank),
                str(example["id"]),
                str(example["label"]),
                INFLUENCE.text(mean[one]),
                models,
            )
        shown.print(listed)
    return 0
