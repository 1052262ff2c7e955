"""What the command palette offers for the words typed so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

import pyarrow.compute as pc

from dashboard.location import BRITTLE, EXPLAIN, EXPLORE, TRAINING, TRAINING_SET, WHAT_IF
from dashboard.names import isolated
from dashboard.slice_parameters import FORMER, PARAMETERS
from dashboard.workspaces import ADDRESSES, WORKSPACES
from engine.store.layout import SPLITS, Split
from engine.store.text import counted
from engine.study.names import find_row, read_names
from engine.study.reader import StudyReader
from engine.study.removal_sets import kept_sets
from engine.study.slices import saved_slices

MOST_OF_A_KIND = 6
MOST_SETS = 200
LONGEST = 200
SLICE = (*PARAMETERS, FORMER, "page")
OPENS: dict[Split, tuple[str, str]] = {"test": (EXPLAIN, "Explain"), "train": (TRAINING, "Open")}


@dataclass(frozen=True)
class Offer:
    """One entry.

    Attributes:
        title: What it opens.
        kind: What kind of thing that is, in a word or two.
        address: The page's address and the parameters that it sets.
        without: Parameters of the current view that do not go along.
    """

    title: str
    kind: str
    address: str
    without: tuple[str, ...] = ()


def offers(study: StudyReader, typed: str) -> list[Offer]:
    """Pages, examples, classes, saved sets and slices whose names contain the text."""
    words = typed.strip()[:LONGEST].casefold()
    found = list(_pages(words))
    if not study.has_data:
        return found
    if words:
        found = [*_examples(study, typed.strip()[:LONGEST]), *found, *_classes(study, words)]
    return [*found, *_sets(study, words), *_slices(study, words)]


def _address(file: str, **parameters: str) -> str:
    query = urlencode(parameters)
    return ADDRESSES[file] + (f"?{query}" if query else "")


def _pages(words: str) -> Iterator[Offer]:
    for workspace in WORKSPACES:
        for page in workspace.pages:
            if words in page.title.casefold() or words in workspace.title.casefold():
                kind = "Page" if page.title == workspace.title else workspace.title
                yield Offer(page.title, kind, _address(page.file))


def _examples(study: StudyReader, typed: str) -> Iterator[Offer]:
    """The example with exactly this id or row, then those whose ids contain the text."""
    for split in reversed(SPLITS):
        ids = read_names(study, split)["id"]
        places = pc.indices_nonzero(pc.match_substring(ids, typed, ignore_case=True))
        rows = places.slice(0, MOST_OF_A_KIND).to_pylist()
        exact = find_row(study, split, typed)
        if exact is not None:
            rows = [exact, *(row for row in rows if row != exact)]
        name = "training" if split == "train" else "test"
        file, verb = OPENS[split]
        for row in rows[:MOST_OF_A_KIND]:
            id_ = str(ids[row].as_py())
            title = f"{verb} {isolated(id_)}"
            yield Offer(title, f"{name} example", _address(file, **{split: id_}))


def _classes(study: StudyReader, words: str) -> Iterator[Offer]:
    classes = [name for name in study.dataset.classes if words in name.casefold()]
    classes.sort(key=lambda name: not name.casefold().startswith(words))
    for name in classes[:MOST_OF_A_KIND]:
        shown = isolated(name)
        yield Offer(f"{shown}: test set", "Class", _address(EXPLORE, label=name), SLICE)
        yield Offer(f"{shown}: training set", "Class", _address(TRAINING_SET, label=name), SLICE)
        yield Offer(f"{shown}: brittle", "Class", _address(BRITTLE, label=name), SLICE)


def _sets(study: StudyReader, words: str) -> Iterator[Offer]:
    sets = [one for one in kept_sets(study, MOST_SETS) if words in one.words.casefold()]
    for one in sets[:MOST_OF_A_KIND]:
        kind = f"Set of {counted(len(one.rows), 'training example')}"
        yield Offer(isolated(one.words), kind, _address(WHAT_IF, set=one.key))


def _slices(study: StudyReader, words: str) -> Iterator[Offer]:
    slices = [one for one in saved_slices(study)[0] if words in one.name.casefold()]
    for one in slices[:MOST_OF_A_KIND]:
        address = _address(EXPLORE, **{str(k): str(v) for k, v in one.parameters.items()})
        yield Offer(isolated(one.name), "Saved slice", address, SLICE)
