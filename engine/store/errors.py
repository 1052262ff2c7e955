"""Errors that are for people: what is wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path


class DataloupeError(Exception):
    """A mistake that a person can correct. The command line prints it as one line and exits with 2.

    Write the message as one sentence or two: what is wrong, where (file, row, key), what to do.
    """


class SpecError(DataloupeError):
    """study.toml or an option of the command line is not valid."""


class DataError(DataloupeError):
    """The dataset cannot be used as it is."""


class MissingCapability(DataloupeError):
    """The study's task, models or files cannot give what was asked for."""


class UnknownName(DataloupeError):
    """A person named something that the study does not have.

    Attributes:
        hint: The names most like it, as a question to follow a sentence; empty if none is similar.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UntrustedCode(DataloupeError):
    """A study names code that this machine's user has not trusted. None of it was run."""


class CheckpointError(DataloupeError):
    """A file of weights does not fit the architecture it is meant for."""


class UploadError(DataloupeError):
    """An uploaded file was refused. Nothing of it was run or kept."""


class ImportingError(DataloupeError):
    """A file made by another tool cannot be brought into the study as it is."""


class StoreError(DataloupeError):
    """A file of the study is missing, broken, or was made from something else."""


class MissingFile(StoreError):
    """A file of the study is missing: never made, or removed by somebody else just now."""


class StaleError(StoreError):
    """Files of the study were made from another spec, other data or other code.

    Attributes:
        paths: Those files.
    """

    def __init__(self, message: str, *paths: Path) -> None:
        super().__init__(message, *paths)
        self.paths = paths

    def __str__(self) -> str:
        return str(self.args[0])


class InterruptedBuild(DataloupeError):
    """The build was stopped; finished work is kept, and the next build continues from there."""
