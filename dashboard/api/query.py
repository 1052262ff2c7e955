"""What a program asks: the parameters of its address, checked as strictly as nowhere else.

A page shows a problem of its address and goes on. A program must not take the answer to another
question for that to its own, so every problem is an error here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from dashboard.location import Location, read_location
from dashboard.slice_parameters import PARAMETERS
from engine.store.errors import (
    DataloupeError,
    MissingCapability,
    MissingFile,
    StoreError,
    UnknownName,
    UploadError,
)
from engine.study.methods import ranked_methods
from engine.study.names import resolve_algorithm, resolve_method
from engine.study.nearest import did_you_mean
from engine.study.reader import StudyReader

EVERYTHING = "all"
"""Value of `page` for all examples."""
LONGEST = 60
"""Characters of a wrong value that an error repeats."""


@dataclass(frozen=True)
class Query:
    """One request.

    Attributes:
        study: The study of the server.
        given: Parameter of the address → value.
    """

    study: StudyReader
    given: Mapping[str, str]

    @cached_property
    def everything(self) -> bool:
        """Whether all examples are asked for, and not one page of them."""
        return self.given.get("page") == EVERYTHING

    @cached_property
    def location(self) -> Location:
        """The parameters that pages share, as the pages read them.

        Raises:
            UnknownName: There is no such algorithm or method.
            DataloupeError: A parameter is not valid. StoreError: There are no data yet.
        """
        study, given = self.study, dict(self.given)
        if not study.has_data:
            raise StoreError(
                f"{study.root} has no data yet. `dataloupe build {study.root}` reads them."
            )
        algorithm = resolve_algorithm(study, given.get("algorithm"))
        if study.has_data and ranked_methods(study, algorithm):
            resolve_method(study, algorithm, given.get("method"))
        elif "method" in given:
            resolve_method(study, algorithm, given["method"])  # raises: there are no scores yet
        if self.everything:
            del given["page"]
        found = read_location(study, given)
        if found.foreign is not None:
            raise DataloupeError(
                f"This address is for other data ({found.foreign[:LONGEST]}); this study's are "
                f"{found.study}. Leave out `study`, or ask the server of that study."
            )
        refuse(found.problems)
        kept = found.slice.parameters()
        refuse(
            f"This study has nothing to filter or sort by `{name}={given[name][:LONGEST]}`."
            for name in PARAMETERS
            if name in given and name not in kept
        )
        return found

    @property
    def algorithm(self) -> str:
        return self.location.algorithm

    @property
    def method(self) -> str:
        """Name of the method of the scores.

        Raises:
            StoreError: There are no scores yet.
        """
        found = self.location.method
        return resolve_method(self.study, self.algorithm) if found is None else found

    def needed(self, name: str, what: str) -> str:
        """A parameter that must be given.

        Raises:
            DataloupeError: It is missing.
        """
        value = self.given.get(name, "").strip()
        if not value:
            raise DataloupeError(f"Give `{name}`: {what}.")
        return value

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number from 1 to `most`. Raises DataloupeError for anything else."""
        text = self.given.get(name, str(default))
        if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most:
            return int(text)
        raise DataloupeError(f"{name} must be 1 to {most:,}, not “{text[:LONGEST]}”.")

    def one_of(self, name: str, known: Iterable[str], default: str) -> str:
        """One of several words. Raises UnknownName for anything else."""
        value, words = self.given.get(name, default), list(known)
        if value not in words:
            hint = did_you_mean(value, words)
            raise UnknownName(
                f"{name} must be one of {', '.join(words)}, not “{value[:LONGEST]}”.{hint}", hint
            )
        return value


def built(query: Query) -> tuple[str, str | None]:
    """The algorithm, and the method of its scores as far as there are some: at any time of a build.

    Raises:
        UnknownName: There is no such algorithm or method.
    """
    study, given = query.study, query.given
    algorithm = resolve_algorithm(study, given.get("algorithm"))
    if not study.has_data or not ranked_methods(study, algorithm):
        return algorithm, None
    return algorithm, resolve_method(study, algorithm, given.get("method"))


def refuse(problems: Iterable[str]) -> None:
    """Raise DataloupeError for problems of an address, if there are some."""
    if words := " ".join(problems):
        raise DataloupeError(words)


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise DataloupeError for a parameter that a view does not take: it may be misspelled."""
    names = list(known)
    for name in given:
        if name not in names:
            raise DataloupeError(
                f"There is no parameter “{name[:LONGEST]}” here.{did_you_mean(name, names)} "
                f"Known: {', '.join(names)}."
            )


def status_of(error: DataloupeError) -> int:
    """HTTP status of an error: 404 for what the study does not have (yet), else 400."""
    absent = (UnknownName, MissingFile, StoreError, MissingCapability, UploadError)
    return 404 if isinstance(error, absent) else 400
