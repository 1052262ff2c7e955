"""A slice: a filtered and sorted list of test examples, described by data and never by a query.

The URL holds it as parameters, and a saved slice is these parameters with a name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from engine.store.quantities import MEASURES, SIMILARITY
from engine.store.records import Dataset

RANKS = ("caption_rank", "picture_rank")
"""Measures of a prediction whose highest values are the worst."""
RESULTS = {"correct": True, "wrong": False}
SORTS = {
    "output": "Lowest {}",
    "-output": "Highest {}",
    "error": "Largest error",
    "confidence": "Least confident",
    **{f"-{name}": f"Highest {MEASURES[name].name}" for name in RANKS},
    "similarity": f"Lowest {SIMILARITY.name}",
    "support": "Strongest supporter",
    "oppose": "Strongest opposer",
}
"""Sort orders of a slice, with `{}` for the model output; the default is the order of the data."""
TRAINING_SORTS = {
    "suspicion": "Most suspect label",
    "disagreement": "Neighbors disagree most",
    "self": "Largest self-influence",
    "harm": "Most harmful",
    "help": "Most helpful",
}
"""Further sort orders of training examples; test examples ignore them."""
NEED_SCORES = ("support", "oppose")
_NEEDED = {"predicted": "predicted", "result": "correct", "output": "output"}
"""Parameter → the column of the predictions that it needs; not every task gives every one."""
MOST_PICKED = 500
"""Examples that can be picked individually and still fit in a URL."""
LONGEST_SEARCH = 200
MOST_WORDS = 10**6
"""The longest text, in words, that a filter can ask for."""

Length = tuple[int | None, int | None]
"""Fewest and most words."""
Range = tuple[float, float]
"""Smallest and largest number, both included."""


@dataclass(frozen=True)
class Slice:
    """Filters and order of test examples. None means no filter.

    Attributes:
        label: A class or, where labels are numbers, the smallest and largest, both included.
        output: Smallest and largest model output, both included.
        group: A column of the data and its value.
        id: Text that an id contains, ignoring case.
        text: Words that a text contains; see `engine.data.word_search`.
        length: Fewest and most words of a text, both included; None for no limit.
        measures: Name of a further number of the prediction (`MEASURES`) and its range, each.
        only: Rows picked individually, ascending.
        sort: One of SORTS or TRAINING_SORTS; None is the order of the data.
    """

    label: str | Range | None = None
    predicted: str | None = None
    result: str | None = None
    output: Range | None = None
    group: tuple[str, str] | None = None
    id: str | None = None
    text: str | None = None
    length: Length | None = None
    measures: tuple[tuple[str, Range], ...] = ()
    only: tuple[int, ...] | None = None
    sort: str | None = None

    def filters(self) -> dict[str, Any]:
        """The active filters: name → value. See `dashboard.read.studies.matching`."""
        values = {
            "label": self.label,
            "predicted": self.predicted,
            "correct": None if self.result is None else RESULTS[self.result],
            "output": self.output,
            "group": self.group,
            "id": self.id,
            "text": self.text,
            "length": self.length,
            **dict(self.measures),
            "only": self.only,
        }
        return {name: value for name, value in values.items() if value is not None}

    def parameters(self) -> dict[str, str]:
        """The slice as URL parameters."""
        found = {
            "label": range_text(self.label) if isinstance(self.label, tuple) else self.label,
            "predicted": self.predicted,
            "result": self.result,
            "range": None if self.output is None else range_text(self.output),
            "group": None if self.group is None else "=".join(self.group),
            "id": self.id,
            "text": self.text,
            "length": None if self.length is None else length_text(self.length),
            **{name: range_text(ends) for name, ends in self.measures},
            "only": None if self.only is None else rows_text(self.only),
            "sort": self.sort,
        }
        return {name: value for name, value in found.items() if value is not None}

    def words(self, output: str) -> str:
        """The slice as text, with the name of the model output; empty for all examples."""
        return ", ".join(self.words_of_filters(output).values())

    def words_of_filters(self, output: str) -> dict[str, str]:
        """URL parameter of each filter → the filter as text."""
        parts = {}
        if isinstance(self.label, tuple):
            parts["label"] = f"label {_ends(self.label)}"
        elif self.label is not None:
            parts["label"] = f"true class {self.label}"
        if self.predicted is not None:
            parts["predicted"] = f"predicted {self.predicted}"
        if self.result is not None:
            parts["result"] = self.result
        if self.output is not None:
            parts["range"] = f"{output} {_ends(self.output)}"
        if self.group is not None:
            parts["group"] = f"{self.group[0]} {self.group[1]}"
        if self.id is not None:
            parts["id"] = f"id contains “{self.id}”"
        if self.text is not None:
            parts["text"] = f"text has “{self.text}”"
        if self.length is not None:
            parts["length"] = length_words(self.length)
        for name, ends in self.measures:
            parts[name] = f"{MEASURES[name].name} {_ends(ends)}"
        if self.only is not None:
            parts["only"] = f"{len(self.only):,} picked"
        return parts


PARAMETERS = (
    *("label", "predicted", "result", "range", "group", "id", "text", "length", *MEASURES),
    *("only", "sort"),
)
"""The URL parameters of a slice; `range` is that of the model output."""
FORMER = "margin"
"""What links and saved slices called the model output when there was no other."""


def read_slice(
    query: Mapping[str, str],
    dataset: Dataset,
    problems: list[str],
    groups: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Slice:
    """Check a slice's parameters against the data; invalid ones are reported in `problems`.

    Args:
        groups: Columns that examples can be grouped by → their values.

    Links from before outputs other than the margin call it by that name.
    """
    if dataset.output == FORMER:
        query = {"range" if name == FORMER else name: value for name, value in query.items()}
        if "sort" in query:
            former = {FORMER: "output", f"-{FORMER}": "-output"}
            query["sort"] = former.get(query["sort"], query["sort"])

    def known_class(name: str) -> str | None:
        value = query.get(name)
        if value is not None and value not in dataset.classes:
            problems.append(f"This study has no class “{_short(value)}”; that filter is ignored.")
            return None
        return value

    result = query.get("result")
    if result is not None and result not in RESULTS:
        problems.append(f"result must be correct or wrong, not “{_short(result)}”.")
        result = None
    sort = query.get("sort")
    if sort is not None and sort not in {**SORTS, **TRAINING_SORTS}:
        problems.append(f"Examples cannot be sorted by “{_short(sort)}”.")
        sort = None
    length = None
    if "length" in query:
        length = _length(query["length"])
        if length is None:
            text = _short(query["length"])
            problems.append(f"length must be two numbers, as in 5..40 or 5.., not “{text}”.")
    between = _range("label", query, problems) if dataset.labels == "number" else None
    return Slice(
        label=known_class("label") if dataset.labels != "number" else between,
        predicted=known_class("predicted"),
        result=result,
        output=_range("range", query, problems),
        group=_group(query, groups, problems),
        id=query.get("id", "").strip()[:LONGEST_SEARCH] or None,
        text=query.get("text", "").strip()[:LONGEST_SEARCH] or None,
        length=length,
        measures=tuple(
            (name, ends) for name in MEASURES if (ends := _range(name, query, problems)) is not None
        ),
        only=read_rows("only", query, dataset.n_test, problems),
        sort=sort,
    )


def as_far_as_known(slice: Slice, columns: Collection[str], scored: bool) -> Slice:
    """The slice without what needs columns or scores that there are not.

    Args:
        columns: Those of the examples that there are.
        scored: Whether there are scores.
    """
    unknown = [name for name, column in _NEEDED.items() if column not in columns]
    known = tuple((name, ends) for name, ends in slice.measures if name in columns)
    slice = replace(slice, **dict.fromkeys(unknown), measures=known)
    return (
        slice
        if slice.sort is None or can_sort(slice.sort, columns, scored)
        else replace(slice, sort=None)
    )


def can_sort(sort: str, columns: Collection[str], scored: bool) -> bool:
    """Whether examples with these columns can be sorted so; training examples may be."""
    if sort in TRAINING_SORTS:
        return True
    return scored if sort in NEED_SCORES else sort.removeprefix("-") in columns


def read_rows(
    name: str, query: Mapping[str, str], rows: int, problems: list[str]
) -> tuple[int, ...] | None:
    """The rows that a parameter such as `0-4,17` names, ascending; None if it is missing."""
    if name not in query:
        return None
    found: set[int] = set()
    for part in query[name].split(","):
        first, _, last = part.partition("-")
        ends = [first, last or first]
        fits = all(end.isascii() and end.isdigit() and len(end) <= 9 for end in ends)
        if fits and int(ends[0]) <= int(ends[1]) < rows:
            found.update(range(int(ends[0]), min(int(ends[1]), int(ends[0]) + MOST_PICKED) + 1))
        else:
            text = _short(part)
            problems.append(f"{name} takes rows 0 to {rows - 1:,}, as in 0-4,17, not “{text}”.")
            break
    if len(found) > MOST_PICKED:
        problems.append(
            f"At most {MOST_PICKED} can be picked individually; only the first are kept."
        )
    return tuple(sorted(found)[:MOST_PICKED]) or None


def rows_text(rows: Sequence[int] | np.ndarray) -> str:
    """Rows as a URL parameter: `0-4,17`."""
    numbers = np.unique(np.asarray(rows, dtype=np.int64))
    if not len(numbers):
        return ""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def position_in_slice(rows: np.ndarray, row: int) -> tuple[int | None, int | None, int | None]:
    """Position of `row` in `rows` counted from 1, the row before it, and the row after it.

    `rows` may be in any order. If `row` is not in them, its neighbors are the next smaller and the
    next larger row, and the position is None.
    """
    found = np.flatnonzero(rows == row)
    if len(found):
        place = int(found[0])
        before = int(rows[place - 1]) if place > 0 else None
        after = int(rows[place + 1]) if place + 1 < len(rows) else None
        return place + 1, before, after
    smaller, larger = rows[rows < row], rows[rows > row]
    return None, _or_none(smaller.max, smaller), _or_none(larger.min, larger)


def range_text(ends: Range) -> str:
    """A range of numbers as a URL parameter: `-2..3`."""
    return f"{ends[0]:g}..{ends[1]:g}"


def _range(name: str, query: Mapping[str, str], problems: list[str]) -> Range | None:
    if name not in query:
        return None
    try:
        least, largest = (float(end) for end in query[name].split(".."))
    except ValueError:
        least, largest = np.nan, np.nan
    if -np.inf < least <= largest < np.inf:
        return least, largest
    text = _short(query[name])
    problems.append(f"{name} must be two numbers, as in -2..3, not “{text}”.")
    return None


def _group(
    query: Mapping[str, str], groups: Mapping[str, Sequence[str]], problems: list[str]
) -> tuple[str, str] | None:
    if "group" not in query:
        return None
    text = query["group"]
    for column, values in groups.items():
        value = text.removeprefix(f"{column}=")
        if value != text and value in values:
            return column, value
    problems.append(f"This study has no group “{_short(text)}”; that filter is ignored.")
    return None


def _ends(ends: Range) -> str:
    least, largest = (f"{end:g}".replace("-", "−") for end in ends)
    return f"{least} to {largest}"


def length_text(length: Length) -> str | None:
    """A range of lengths as a URL parameter; None for any length."""
    if length == (None, None):
        return None
    return "..".join("" if end is None else str(end) for end in length)


def length_words(length: Length) -> str:
    """A range of lengths as text."""
    fewest, most = length
    if fewest is None:
        return f"at most {most:,} words"
    return f"at least {fewest:,} words" if most is None else f"{fewest:,} to {most:,} words"


def _length(text: str) -> Length | None:
    ends = text.split("..")
    if len(ends) != 2 or not any(ends):
        return None
    if not all(end == "" or (end.isascii() and end.isdigit() and len(end) < 8) for end in ends):
        return None
    fewest, most = (int(end) if end else None for end in ends)
    found = [end for end in (fewest, most) if end is not None]
    return (fewest, most) if found == sorted(found) and found[-1] <= MOST_WORDS else None


def _or_none(extreme: Callable[[], Any], rows: np.ndarray) -> int | None:
    return int(extreme()) if len(rows) else None


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
