"""Compute a prediction's scores exactly, as a job, and show them beside the estimate."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from dashboard.location import Location
from dashboard.parts.gallery.cards import influence_cards
from dashboard.parts.gallery.gallery import Card, Group, gallery
from dashboard.parts.jobs.cost import cost_words
from dashboard.parts.jobs.job_panel import job_panel
from dashboard.parts.jobs.submit_button import job_button, pop_message
from dashboard.parts.layout.blocks import aside, heading
from dashboard.parts.layout.messages import warning
from dashboard.read.studies import examples
from engine.applications.replay.answer import KIND, SEEDS, Answer, read_answer, trainings
from engine.applications.replay.smoothness import smoothness_words
from engine.build.replaying import check_replayable
from engine.running.jobs.queue import Job, jobs
from engine.store.errors import SpecError, UploadError
from engine.store.quantities import CHANGE
from engine.store.text import counted
from engine.study.rankings import read_top
from engine.study.reader import StudyReader

SIDE = 112


def exact_answer(study: StudyReader, here: Location, row: int) -> None:
    """Show the exact scores of one prediction, or what they cost and a button that computes them.

    Nothing is shown for models that cannot be trained again, such as those whose training starts
    from a file that is not here.
    """
    algorithm = here.algorithm
    try:
        check_replayable(study, algorithm)
        answer = read_answer(study, row, algorithm)
    except (SpecError, UploadError):
        return
    heading("Exact scores")
    job = _latest(study, algorithm, row)
    if job is not None and job.status != "done":
        job_panel(study, job.id)
        if job.active:
            aside("You can close the browser: the job keeps running and its result is kept.")
            return
    if message := pop_message(KIND):
        warning([message])
    if answer is not None:
        _show(study, here, row, answer)
        if len(answer.seeds) >= SEEDS:
            return
    _offer(study, algorithm, row)


def _offer(study: StudyReader, algorithm: str, row: int) -> None:
    test = str(examples(study, "test", algorithm).table["id"].iloc[row])
    aside(
        "The scores above are estimates. Replay differentiates through the training of "
        f"{counted(SEEDS, 'model')}: {cost_words(study, algorithm, trainings(study, algorithm))} "
        "here."
    )
    job_button(
        "Compute exactly",
        study,
        KIND,
        {"tests": [row], "algorithm": algorithm, "seeds": SEEDS},
        f"Compute the scores of {test} exactly",
        icon=":material/function:",
        key="compute_exactly",
    )


def _show(study: StudyReader, here: Location, row: int, answer: Answer) -> None:
    training, test = examples(study, "train"), examples(study, "test", here.algorithm)
    top = read_top(study, here.algorithm, here.method)
    mean, models = answer.mean, len(answer.seeds)
    sides = answer.strongest(here.k)
    largest = float(np.abs(mean).max()) or 1.0
    groups, same = [], []
    signs: tuple[tuple[Literal["support", "oppose"], str, str], ...] = (
        ("support", "Supporting", "helps"),
        ("oppose", "Opposing", "hurts"),
    )
    for (sign, title, verb), rows in zip(signs, sides, strict=True):
        estimated = [int(one) for one in top[f"{sign}_index"][row]]
        cards = influence_cards(
            training, rows, mean[rows], largest, here, str(test.table["id"].iloc[row]), mean[rows]
        )
        cards = [
            _beside(card, estimated, f"{verb} in {count} of {models}")
            for card, count in zip(cards, answer.agreeing(rows), strict=True)
        ]
        same.append(len(set(rows.tolist()) & set(estimated[: len(rows)])))
        change = answer.without(rows)
        groups.append(
            Group(
                f"{title} training examples, exact",
                cards,
                title=f"{title}, exactly",
                words=(
                    f"Without these {len(rows)}, the {training.output} changes by about "
                    f"{CHANGE.text(change.mean)} (models: {CHANGE.range(change.low, change.high)})."
                ),
                sign=sign,
                empty="None.",
            )
        )
    support, oppose = sides
    aside(
        f"Replay of {counted(models, 'model')} of {here.algorithm}, in units of the "
        f"{training.output}. Of the {len(support)} strongest supporters the estimate names "
        f"{same[0]}, of the {len(oppose)} strongest opposers {same[1]}. Below each: "
        "in how many models it helps or hurts."
    )
    if answer.smoothness is not None:
        found = answer.smoothness
        aside(smoothness_words(study, here.algorithm))
        if not found.smooth:
            levers = [one.replace("`", "") for one in found.levers]
            warning([f"Training would be smoother with {one}." for one in levers])
    gallery(study, "train", groups, SIDE, "exact")


def _beside(card: Card, estimated: list[int], agreeing: str) -> Card:
    """A card with its rank in the estimate and the models that agree."""
    rank = estimated.index(card.row) + 1 if card.row in estimated else None
    return replace(
        card,
        note=agreeing,
        tag=f"estimate #{rank}" if rank else "not estimated",
        hint=f"{card.hint}, {agreeing} models, "
        + (f"number {rank} of the estimate" if rank else "not listed by the estimate"),
    )


def _latest(study: StudyReader, algorithm: str, row: int) -> Job | None:
    """The last job for this prediction, if any."""
    for one in jobs(study.root):
        asked = one.parameters
        if one.kind == KIND and asked["algorithm"] == algorithm and row in asked["tests"]:
            return one
    return None
