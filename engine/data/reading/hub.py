"""Datasets of the Hugging Face hub, and those that a function of the user returns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets

from engine.data.reading.rows import Rows, no_split
from engine.store.errors import DataError, SpecError
from engine.store.spec import DataSpec
from engine.store.trust import Code, load_code


def read_hub(spec: DataSpec, base: Path) -> tuple[Rows, Rows]:
    """Read both splits of `owner/name`, from the network or the library's cache."""
    try:
        splits = datasets.load_dataset(spec.source, spec.config)
    except Exception as error:  # network, access and format errors of three libraries
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{spec.source!r} is not a path in {base}, and the Hugging Face hub could not give it: "
            f"{reason[0]}"
        ) from error
    return _named_splits(splits, spec, base)


def read_function(spec: DataSpec, base: Path) -> tuple[Rows, Rows]:
    """Call `python:module:function`, which returns a `datasets.DatasetDict`."""
    try:
        function = load_code(Code.of(spec.source), base, ())
    except SpecError as error:
        raise DataError(f"source = {error}") from error
    return _named_splits(function(), spec, base)


def _named_splits(splits: Any, spec: DataSpec, base: Path) -> tuple[Rows, Rows]:
    if not isinstance(splits, Mapping):
        raise DataError(
            f"source = {spec.source!r} gave {type(splits).__name__}; a datasets.DatasetDict with "
            f"the splits {spec.train!r} and {spec.test!r} is needed."
        )
    for name in (spec.train, spec.test):
        if name not in splits:
            raise no_split(repr(spec.source), name, list(splits))
        if not isinstance(splits[name], datasets.Dataset):
            raise DataError(
                f"source = {spec.source!r}: split {name!r} is {type(splits[name]).__name__}, "
                "not a datasets.Dataset."
            )
    return Rows(splits[spec.train], base), Rows(splits[spec.test], base)
