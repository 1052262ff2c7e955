"""The five workspaces and their pages: titles, addresses and where old addresses lead."""

from __future__ import annotations

from dataclasses import dataclass

from dashboard.location import (
    BRITTLE,
    COMPARE,
    EXPLAIN,
    EXPLORE,
    JOBS,
    LIVE,
    MAP,
    OVERVIEW,
    PROVENANCE,
    QUALITY,
    TRAINING,
    TRAINING_SET,
    UNLEARN,
    WHAT_IF,
)


@dataclass(frozen=True)
class Entry:
    """A page in the navigation.

    Attributes:
        file: Its file, below this folder.
        title: Its name in the navigation.
        address: The last part of its URL; empty for the landing page.
        help: What it shows, one sentence.
        method: The only method of its scores; empty if it shows those of the chosen one.
        badge: Whether it shows the quality of its scores beside them, so the header need not.
    """

    file: str
    title: str
    address: str
    help: str
    method: str = ""
    badge: bool = False


@dataclass(frozen=True)
class Workspace:
    """Pages that belong together.

    Attributes:
        pages: The first one opens when the workspace is chosen.
    """

    title: str
    pages: tuple[Entry, ...]


WORKSPACES = (
    Workspace(
        "Overview",
        (
            Entry(
                OVERVIEW,
                "Overview",
                "",
                "What was found in the data and the predictions, and what to do about it.",
            ),
        ),
    ),
    Workspace(
        "Data",
        (
            Entry(
                EXPLORE,
                "Test set",
                "test-set",
                "All test examples, filtered by label and prediction.",
            ),
            Entry(
                TRAINING_SET,
                "Training set",
                "training-set",
                "All training examples, filtered and sorted by their influence.",
            ),
            Entry(
                TRAINING,
                "Training example",
                "training",
                "One training example, and the predictions it helps and hurts.",
                badge=True,
            ),
            Entry(
                MAP,
                "Map",
                "map",
                "Training and test examples in 2-D, by their influence on predictions.",
            ),
        ),
    ),
    Workspace(
        "Predictions",
        (
            Entry(
                EXPLAIN,
                "Explain",
                "explain",
                "One prediction, and the training examples that support and oppose it.",
                badge=True,
            ),
            Entry(
                BRITTLE,
                "Brittle",
                "brittle",
                "Predictions that depend on a few training examples, verified by retraining.",
                badge=True,
            ),
            Entry(
                LIVE,
                "Live",
                "live",
                "Your own example: its prediction, and the training data behind it.",
                method="TRAK, live",
            ),
        ),
    ),
    Workspace(
        "Experiments",
        (
            Entry(
                WHAT_IF,
                "What if",
                "what-if",
                "Remove training examples: the predicted effect, verified by retraining.",
                badge=True,
            ),
            Entry(
                UNLEARN,
                "Unlearn",
                "unlearn",
                "Make a model forget training examples, and audit it against real retrains.",
                badge=True,
            ),
            Entry(
                COMPARE,
                "Compare",
                "compare",
                "Two learning algorithms: which training data each relies on, and why.",
            ),
        ),
    ),
    Workspace(
        "Trust",
        (
            Entry(
                QUALITY,
                "Quality",
                "quality",
                "How far the scores can be trusted, and what they can be used for.",
            ),
            Entry(
                PROVENANCE,
                "Provenance",
                "provenance",
                "Data, code and settings of the study, and whether its files are intact.",
            ),
            Entry(
                JOBS,
                "Jobs",
                "jobs",
                "Long-running work: progress, remaining time and results.",
            ),
        ),
    ),
)
PAGES = tuple(page for workspace in WORKSPACES for page in workspace.pages)
ADDRESSES = {page.file: page.address for page in PAGES}
"""File of a page → the last part of its URL."""
OLD_ADDRESSES = {"overview": "", "explore": "test-set", "training-example": "training"}
"""Addresses of earlier versions, and names that people try → where they lead."""


def workspace_of(address: str) -> tuple[Workspace, Entry]:
    """The workspace and the page with this address; the landing page if there is none."""
    for workspace in WORKSPACES:
        for page in workspace.pages:
            if page.address == address:
                return workspace, page
    return WORKSPACES[0], PAGES[0]
