"""Which architecture uploaded weights are of, by the names and shapes that their header promises.

Architectures come from the registry of built-ins or from the study's own spec; no upload names
code. Nothing is allocated for them here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.exchange.uploads.header import Entry, quoted
from engine.models import ARCHITECTURES, guess_options, state_shapes
from engine.store.errors import SpecError, UploadError
from engine.store.records import Dataset
from engine.store.spec import AlgorithmSpec

Shapes = Mapping[str, tuple[int, ...]]


_ALIKE = 0.5
"""Share of names in common from which on weights are taken for an architecture's, if wrong ones."""


@dataclass(frozen=True)
class Architecture:
    """An architecture with its options, as study.toml would have them."""

    name: str
    options: dict[str, Any]

    def __str__(self) -> str:
        options = ", ".join(f"{key} = {value}" for key, value in self.options.items())
        return f"{self.name} ({options})" if options else self.name


def match(
    entries: Mapping[str, Entry],
    name: str,
    dataset: Dataset,
    algorithms: Mapping[str, AlgorithmSpec],
    asked: str | None = None,
) -> Architecture:
    """Find the architecture whose names and shapes are exactly these.

    Args:
        entries: The file's header.
        name: What the file is called in errors.
        dataset: The study's data, which say shapes of inputs and number of classes.
        algorithms: Of the study's own spec; their architectures are tried first.
        asked: The architecture that the user named: a built-in, or one of the study's spec.

    Raises:
        UploadError: It is none of them, with what does not fit; or one that no upload may name.
    """
    shapes = {key: entry.shape for key, entry in entries.items()}
    known = [Architecture(s.architecture, s.architecture_options) for s in algorithms.values()]
    allowed = sorted({*ARCHITECTURES, *(architecture.name for architecture in known)})
    if asked is not None and asked not in allowed:
        raise UploadError(
            f"{name}: architecture {quoted(asked)} is neither a built-in nor one of this study; "
            f"take {', '.join(allowed)}."
        )
    misfits: list[tuple[float, str]] = []  # (share of names in common, what does not fit)
    for candidate in _candidates(known, shapes):
        if asked not in (None, candidate.name):
            continue
        try:
            wanted = state_shapes(
                candidate.name, candidate.options, dataset.encoding, len(dataset.classes)
            )
        except SpecError as error:  # sizes that it cannot have, or inputs of another kind
            misfits.append((0.0, str(error)))
            continue
        why = misfit(shapes, wanted, candidate, len(dataset.classes))
        if why is None:
            return candidate
        common = len(set(shapes) & set(wanted)) / max(len(shapes), len(wanted))
        misfits.append((common, why))
    nearest = max(misfits, key=lambda found: found[0], default=(0.0, ""))
    if nearest[0] > _ALIKE or (asked is not None and misfits):
        raise UploadError(f"{name} does not fit: {nearest[1]}")
    kind = f"not of {asked}" if asked else "of no architecture known here"
    raise UploadError(
        f"{name} is {kind}: it has {len(shapes):,} tensors such as "
        f"{_first([quoted(key) for key in shapes])}. Known are {', '.join(allowed)}; others can be "
        "added to study.toml. (`dataloupe convert FILE` takes off what wrappers put before names.)"
    )


def _candidates(known: list[Architecture], shapes: Shapes) -> Iterator[Architecture]:
    """The study's own architectures, then the built-ins with the options that the shapes say."""
    yield from known
    for name in ARCHITECTURES:
        options = guess_options(name, shapes)
        if options is not None:
            guessed = Architecture(name, options)
            if guessed not in known:
                yield guessed


def misfit(found: Shapes, wanted: Shapes, architecture: Architecture, n_classes: int) -> str | None:
    """What is wrong with these names and shapes, in one sentence; None where all is right."""
    missing = [quoted(key) for key in wanted if key not in found]
    extra = [quoted(key) for key in found if key not in wanted]
    if missing or extra:
        parts = [f"{_first(missing)} missing"] if missing else []
        parts += [f"{_first(extra)} not known to it"] if extra else []
        return f"as {architecture}, it has {' and '.join(parts)}."
    wrong = {key: (found[key], wanted[key]) for key in wanted if found[key] != wanted[key]}
    if not wrong:
        return None
    classes = {
        theirs[0]
        for theirs, ours in wrong.values()
        if theirs and ours[:1] == (n_classes,) and theirs[1:] == ours[1:]
    }
    key, (theirs, ours) = next(iter(wrong.items()))
    if len(classes) == 1 and all(ours[:1] == (n_classes,) for _, ours in wrong.values()):
        return f"it tells {classes.pop():,} classes apart, and this study has {n_classes:,}."
    if theirs == ours[::-1]:
        return f"{quoted(key)} is transposed: {list(theirs)} where {architecture} has {list(ours)}."
    return f"{quoted(key)} is {list(theirs)} where {architecture} has {list(ours)}."


def _first(items: list[str], count: int = 3) -> str:
    rest = len(items) - count
    return ", ".join(items[:count]) + (f" and {rest:,} more" if rest > 0 else "")
