"""What a study can show, and what is missing for the rest.

Pages, verbs and exports ask for a capability, never for a task's name:

    if reason := missing(study, "outcomes"): ...     # one sentence: what is missing, how to get it
    require(study, "classes")                        # raises MissingCapability
"""

from __future__ import annotations

from typing import Literal

from engine.store.errors import MissingCapability
from engine.study.reader import StudyReader

Capability = Literal["outcomes", "classes", "unlearning", "pictures", "texts"]
UNLEARNING, UNLEARNING_OUTPUTS = ("classes", "exact"), ("denoising",)
"""Outcomes, and first outputs of tasks without outcomes, that unlearning can match
(`engine.tasks.outcomes.matched_named`)."""


def has(study: StudyReader, capability: Capability) -> bool:
    """Whether a study has a capability.

    - `outcomes`: predictions are right or wrong, so they can flip and be brittle.
    - `classes`: each example has one of several classes, and models give a logit for each.
    - `unlearning`: there are outputs of each example that unlearning can match.
    - `pictures`, `texts`: examples are shown as such.
    """
    dataset = study.dataset
    found = {
        "outcomes": dataset.outcomes is not None,
        "unlearning": dataset.outcomes in UNLEARNING or dataset.output in UNLEARNING_OUTPUTS,
        "classes": dataset.labels == "class",
        "pictures": "picture" in dataset.views,
        "texts": "text" in dataset.views,
    }
    return found[capability]


def missing(study: StudyReader, capability: Capability) -> str:
    """Why a study lacks a capability, one sentence; empty if it has it."""
    if has(study, capability):
        return ""
    task = study.dataset.task
    reasons = {
        "outcomes": f"Predictions of the task {task} are neither right nor wrong, so they have no "
        "accuracy and cannot flip. Studies of classification have this.",
        "classes": f"Examples of the task {task} do not have one class each. Studies of "
        "classification have this.",
        "unlearning": "Unlearning matches class logits, the log-odds of tokens or errors of "
        f"denoising, and the task {task} has none of them. Studies of classification, of generated "
        "texts and of diffusion have this.",
        "pictures": f"Examples of the task {task} are not pictures.",
        "texts": f"Examples of the task {task} are not texts.",
    }
    return reasons[capability]


def require(study: StudyReader, capability: Capability, what: str) -> None:
    """Raise MissingCapability if a study lacks a capability. Without data nothing is known of it.

    Args:
        what: What needs it, as the beginning of a sentence: `Brittle predictions`.
    """
    if study.has_data and (reason := missing(study, capability)):
        raise MissingCapability(f"{what} cannot be computed for this study. {reason}")
