"""The table of views: address, parameters and answer of each. Everything else is made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from dashboard.api.answer import Answer
from dashboard.api.pages import MOST
from dashboard.api.query import Query
from dashboard.api.views import (
    brittle,
    compare,
    explain,
    findings,
    jobs,
    labels,
    map,
    overview,
    provenance,
    quality,
    test_set,
    training,
    training_set,
    unlearn,
    what_if,
)
from dashboard.location import DEFAULT_K, SHOWS, SIZES, STATE
from dashboard.read.curation import DECIDED
from dashboard.read.maps import EMBEDDING
from dashboard.read.supports import LIKELY, LIKELY_BY_DEFAULT
from dashboard.slice_parameters import RESULTS, SORTS, TRAINING_SORTS
from dashboard.workspaces import workspace_of
from engine.applications.brittle.data_issues import RULES
from engine.applications.brittle.supports import AT_MOST
from engine.applications.brittle.table import STATUSES
from engine.applications.joint_removal import MOST as MOST_TOGETHER
from engine.applications.joint_removal import SUPPORTERS
from engine.store.layout import MAP_KINDS
from engine.store.quantities import MEASURES


@dataclass(frozen=True)
class Parameter:
    """A parameter of an address.

    Attributes:
        name: Of the parameter.
        what: What it means, a sentence.
        kind: `page` is a number from 1, or `all`.
        required: Whether it must be given.
        options: All values there are; empty if there are others.
        example: A value to try.
    """

    name: str
    what: str
    kind: Literal["string", "integer", "page"] = "string"
    required: bool = False
    options: tuple[str, ...] = ()
    example: str = ""


@dataclass(frozen=True)
class View:
    """One view of the study.

    Attributes:
        name: Its address below `/api/`.
        what: What the answer holds, a sentence.
        content: Type of the answer.
        answer: Gives the answer.
        parameters: Those it uses. Parameters of the pages' addresses that it does not use are
            accepted, so that the query of a page's address can be taken over.
        long: The field that is streamed if all of it is asked for; empty without one.
        of: Address of its page, if that is another than its name.
        live: Whether it changes without a change of the study's files: then nothing keeps it.
    """

    name: str
    what: str
    content: type
    answer: Callable[[Query], Answer]
    parameters: tuple[Parameter, ...]
    long: str = ""
    of: str = ""
    live: bool = False

    @property
    def page(self) -> str:
        """Address of the page that shows the same."""
        address = self.of or self.name
        return "./" if address == "overview" else address


ALGORITHM = Parameter(
    "algorithm", "Learning algorithm, or id of an upload. Default: the study's first."
)
METHOD = Parameter("method", "Attribution method of the scores. Default: the preferred one.")
K = Parameter(
    "k", f"How many training examples of each sign. Default: {DEFAULT_K}.", "integer", example="10"
)
PAGE = Parameter(
    "page", "Which part of the list, from 1, or `all` to stream all of it.", "page", example="1"
)
PER_PAGE = Parameter(
    "per_page", f"Entries of one part, at most {MOST}. Default: as on the page.", "integer"
)
FORMAT = Parameter(
    "format",
    "`ndjson`: one line for the answer without its list, then one line an entry. The header "
    "`Accept: application/x-ndjson` asks for it, too. Default: json.",
    options=("json", "ndjson"),
)
STUDY = Parameter(
    "study", "Fingerprint of the data that the address is for; another study's is an error."
)
LABEL = Parameter(
    "label", "Only this true class or, where labels are numbers, a range as in -2..3."
)
SORT = Parameter("sort", "Order of the list. Default: that of the data.", options=tuple(SORTS))
SLICE = (
    LABEL,
    Parameter("predicted", "Only this predicted class."),
    Parameter("result", "Only right or wrong predictions.", options=tuple(RESULTS)),
    Parameter("range", "Only model outputs in this range, as in -2..3."),
    Parameter("group", "Only this value of a column, as in color=red."),
    Parameter("id", "Only ids or files that contain this text."),
    Parameter("text", "Only texts with these words."),
    Parameter("length", "Only texts of so many words, as in 5..40 or 5.."),
    *(
        Parameter(name, f"Only this {measure.name}, as in 0..5; of pairs only.")
        for name, measure in MEASURES.items()
    ),
    Parameter("only", "Only these rows, as in 0-4,17."),
    SORT,
)
SIZE = Parameter(
    "size",
    "Thumbnails of the page: with small ones, a part holds 960 examples, else 120.",
    options=tuple(SIZES),
)
SET = Parameter("set", "Key of a removal set that is saved in the study.")
DECISION = Parameter("decided", "Only examples with this decision.", options=tuple(DECIDED))
OF_TRAINING = (*(one for one in SLICE if one.name not in ("only", SORT.name)), DECISION)
"""Filters of training examples."""

DISPLAY = {
    "training-set": ("view",),
    "map": ("colour", "lasso"),
    "explain": ("beside", "tokens", "find", "over"),
    "training": ("tokens", "find"),
    "brittle": ("removed",),
    "compare": ("pane", "side", "direction"),
    "unlearn": ("pane", "on", "audit", "unlearned_by"),
}
"""Page → its own parameters, which only change how it shows the same."""

VIEWS = (
    View(
        "overview",
        "Accuracy, confusion matrix, most influential training examples, warnings of the data.",
        overview.Overview,
        overview.answer,
        (ALGORITHM, METHOD),
    ),
    View(
        "findings",
        "What was found in the data and the predictions: suspect labels, copies, leaks, brittle "
        "predictions, harmful training examples, poor classes, differences between algorithms.",
        findings.Findings,
        findings.answer,
        (ALGORITHM, METHOD),
        of="overview",
    ),
    View(
        "test-set",
        "The test examples of a slice, with their predictions.",
        test_set.TestSet,
        test_set.answer,
        (ALGORITHM, METHOD, *SLICE, SIZE, PAGE, PER_PAGE, FORMAT),
        long="examples",
    ),
    View(
        "training-set",
        "The training examples of a slice: label suspicion, influence, and what was decided.",
        training_set.TrainingSet,
        training_set.answer,
        (
            ALGORITHM,
            METHOD,
            *OF_TRAINING,
            replace(SORT, options=(*TRAINING_SORTS, *training_set.SHARED_SORTS)),
            SIZE,
            PAGE,
            PER_PAGE,
            FORMAT,
        ),
        long="examples",
    ),
    View(
        "labels",
        "Training labels that look wrong, most suspicious first, and what was decided about them.",
        labels.Labels,
        labels.answer,
        (ALGORITHM, METHOD, *OF_TRAINING, SIZE, PAGE, PER_PAGE, FORMAT),
        long="labels",
        of="training-set",
    ),
    View(
        "explain",
        "One prediction, and the training examples that support and oppose it.",
        explain.Explained,
        explain.answer,
        (
            Parameter(
                "test", "Id of a test example, or its row as #17.", required=True, example="#17"
            ),
            K,
            ALGORITHM,
            METHOD,
            Parameter("output", "The explained model output; `outputs` of an answer lists some."),
            Parameter(
                "show",
                "What else to list: `similar` and `words` add such training examples.",
                options=tuple(SHOWS),
            ),
        ),
    ),
    View(
        "training",
        "One training example, and the test predictions that it helps and hurts most.",
        training.TrainingExample,
        training.answer,
        (
            Parameter(
                "train",
                "Id of a training example, or its row as #17.",
                required=True,
                example="#17",
            ),
            K,
            ALGORITHM,
            METHOD,
        ),
    ),
    View(
        "brittle",
        "Predictions that are predicted to flip when a few training examples are removed.",
        brittle.BrittleList,
        brittle.answer,
        (
            ALGORITHM,
            METHOD,
            Parameter(
                "at_most",
                f"Largest number of removed training examples. Default: {AT_MOST}.",
                "integer",
            ),
            Parameter(
                "likely",
                f"Least probability of a flip, in percent. Default: {LIKELY_BY_DEFAULT}.",
                options=tuple(str(one) for one in LIKELY),
            ),
            Parameter("test", "Only this test example: its id, or its row as #17."),
            Parameter(
                "status", "Only this status; without one, all but refuted.", options=STATUSES
            ),
            replace(LABEL, what="Only this true class."),
            Parameter("flag", "Only examples with this data issue.", options=tuple(RULES)),
            Parameter("tag", "Only examples with this tag."),
            PAGE,
            PER_PAGE,
            FORMAT,
        ),
        long="predictions",
    ),
    View(
        "map",
        "Every example's place on the map of the attribution space. Always streamed.",
        map.Map,
        map.answer,
        (
            ALGORITHM,
            METHOD,
            Parameter("kind", "How it is drawn.", options=(*MAP_KINDS, EMBEDDING)),
            FORMAT,
        ),
        long="points",
    ),
    View(
        "what-if",
        "The predicted effect of removing training examples, and its verifications.",
        what_if.WhatIf,
        what_if.answer,
        (
            Parameter(
                "remove",
                "Ids of training examples, or rows as #17, separated by commas; or give `set` or "
                "`together`.",
                example="#0,#1",
            ),
            SET,
            Parameter(
                "together",
                "Id of a test example: the training examples that support it most together.",
            ),
            Parameter(
                "supporters", f"How many of these, up to {MOST_TOGETHER}. Default: {SUPPORTERS}."
            ),
            K,
            ALGORITHM,
            METHOD,
            Parameter("by", "Column whose groups the effect is averaged over. Default: the class."),
            replace(
                PAGE, what="`all`: every test prediction, streamed, in place of the k strongest."
            ),
            FORMAT,
        ),
        long="predictions",
    ),
    View(
        "unlearn",
        "The stored audits of unlearned models against retrained ones.",
        unlearn.Audits,
        unlearn.answer,
        (ALGORITHM, SET),
    ),
    View(
        "compare",
        "What two learning algorithms do differently.",
        compare.Comparison,
        compare.answer,
        (
            Parameter("a", "The one algorithm, or id of an upload. Default: the study's first."),
            Parameter("b", "The other. Default: the newest upload, else the study's second."),
            Parameter("by_a", "Method of the scores of a."),
            Parameter("by_b", "Method of the scores of b."),
        ),
    ),
    View(
        "quality",
        "LDS and calibration of every method, and what its scores can be used for.",
        quality.Measurements,
        quality.answer,
        (ALGORITHM, METHOD),
    ),
    View(
        "provenance",
        "Data, code and settings of the study, and how far it is built.",
        provenance.Provenance,
        provenance.answer,
        (ALGORITHM,),
    ),
    View(
        "jobs",
        "The newest jobs, with their progress and results.",
        jobs.Jobs,
        jobs.answer,
        (),
        live=True,
    ),
)
PICTURE = (
    Parameter("split", "Which examples. Default: test.", options=("train", "test")),
    Parameter("row", "Row of the example, from 0.", "integer", example="17"),
    Parameter("id", "Or its id."),
)
"""Parameters of `/api/picture`."""


def known_names(view: View) -> list[str]:
    """Every parameter that an address of this view may have, its own first."""
    own = [one.name for one in view.parameters]
    return list(dict.fromkeys([*own, *STATE, PAGE.name, *DISPLAY.get(view.page, ())]))


def title_of(view: View) -> str:
    """Title of the page that shows what a view gives."""
    return workspace_of(view.page)[1].title
