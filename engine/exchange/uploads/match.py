"""Find the architecture of uploaded weights by the tensor names and shapes in their header.

Architectures come from the built-in registry or from the study's spec: an upload cannot name code.
No tensors are allocated here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.exchange.uploads.header import Entry, quoted
from engine.models import ARCHITECTURES, guess_options, state_of
from engine.store.errors import SpecError, UntrustedCode, UploadError
from engine.store.records import Dataset
from engine.store.spec import AlgorithmSpec
from engine.store.text import counted
from engine.training.weight_names import Fit, Misfit, bare_name, match_names

Shapes = Mapping[str, tuple[int, ...]]


_DEPTH, _MOST_STARTS = 5, 64
"""How deep a model may stand in a file's names, and how many prefixes are tried."""
_SIMILAR = 0.5
"""With a larger share of names in common, an error explains the mismatch with that architecture."""


@dataclass(frozen=True)
class Architecture:
    """An architecture with its options, as in study.toml."""

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
    requested: str | None = None,
    root: Path | None = None,
) -> Architecture:
    """Find the architecture with exactly the names and shapes of a file.

    Args:
        entries: The file's header.
        name: The file's name in error messages.
        dataset: The study's data, which determine the input shape and the number of classes.
        algorithms: The algorithms of the study's spec; their architectures are tried first.
        requested: The architecture that the user chose, a built-in or one of the study's spec;
            None: try all.
        root: The study's folder. Its own architectures that are code are tried if it is trusted.

    Raises:
        UploadError: No architecture matches, or uploads may not use the requested one.
        UntrustedCode: Only an architecture that is not trusted could match.
    """
    shapes = {key: entry.shape for key, entry in entries.items()}
    known = [Architecture(s.architecture, s.architecture_options) for s in algorithms.values()]
    allowed = sorted({*ARCHITECTURES, *(architecture.name for architecture in known)})
    if requested is not None and requested not in allowed:
        raise UploadError(
            f"{name}: architecture {quoted(requested)} is neither a built-in nor one of this "
            f"study; choose one of {', '.join(allowed)}."
        )
    mismatches: list[tuple[float, str]] = []  # (share of names in common, what does not match)
    untrusted: UntrustedCode | None = None
    for candidate in _candidates(known, shapes):
        if requested not in (None, candidate.name):
            continue
        try:
            expected = state_of(
                candidate.name, candidate.options, dataset.encoding, dataset.width, root
            )
        except UntrustedCode as error:
            untrusted = error
            continue
        except SpecError as error:  # impossible sizes, or a different kind of input
            mismatches.append((0.0, str(error)))
            continue
        fit = match_names(shapes, expected.shapes, ties=expected.ties)
        if isinstance(fit, Fit):
            return candidate
        reason = mismatch(fit, candidate, dataset.width, bool(dataset.classes))
        common = (len(expected.shapes) - len(fit.missing)) / max(len(shapes), len(expected.shapes))
        common = 1.0 if fit.choices else common
        mismatches.append((common, reason))
    if untrusted is not None:
        raise untrusted
    nearest = max(mismatches, key=lambda found: found[0], default=(0.0, ""))
    if nearest[0] > _SIMILAR or (requested is not None and mismatches):
        raise UploadError(f"{name} does not match: {nearest[1]}")
    which = f"the architecture {requested}" if requested else "any known architecture"
    raise UploadError(
        f"{name} does not match {which}: it has {counted(len(shapes), 'tensor')} such as "
        f"{_first([quoted(key) for key in shapes])}. Known architectures are "
        f"{', '.join(allowed)}; add others to study.toml. If a wrapper added prefixes to the "
        "names, remove them with `dataloupe convert FILE`."
    )


def _candidates(known: list[Architecture], shapes: Shapes) -> Iterator[Architecture]:
    """Yield the study's architectures, then the built-ins with options guessed from the shapes."""
    yield from known
    for start in _starts(shapes):
        inside = {
            bare_name(key).removeprefix(start): shape
            for key, shape in shapes.items()
            if bare_name(key).startswith(start)
        }
        for name in ARCHITECTURES:
            options = guess_options(name, inside)
            if options is not None:
                guessed = Architecture(name, options)
                if guessed not in known:
                    yield guessed


def _starts(names: Collection[str]) -> list[str]:
    """Prefixes that may hold a whole model, the most common first; hostile files may have many."""
    counted = Counter([""] * len(names))
    for name in names:
        parts = bare_name(name).split(".")
        counted.update(".".join(parts[:n]) + "." for n in range(1, min(len(parts), _DEPTH)))
    return [start for start, _ in counted.most_common(_MOST_STARTS)]


def mismatch(
    misfit: Misfit, architecture: Architecture, width: int, of_classes: bool = True
) -> str:
    """Describe in one sentence how names or shapes differ."""
    if misfit.choices:
        named = [quoted(prefix) if prefix else "no prefix" for prefix in sorted(misfit.choices)]
        return (
            f"it holds {architecture} {len(named)} times, under {' and '.join(named)}; keep one "
            "with `dataloupe convert FILE --key PREFIX`."
        )
    if misfit.missing or misfit.unexpected:
        missing, extra = (list(map(quoted, x)) for x in (misfit.missing, misfit.unexpected))
        parts = [f"does not have {_first(missing)}"] if missing else []
        parts += [f"has the unknown {_first(extra)}"] if extra else []
        return f"compared with {architecture}, it {' and '.join(parts)}."
    wrong = misfit.wrong
    widths = {
        theirs[0]
        for theirs, ours in wrong.values()
        if theirs and ours[:1] == (width,) and theirs[1:] == ours[1:]
    }
    key, (theirs, ours) = next(iter(wrong.items()))
    if len(widths) == 1 and all(ours[:1] == (width,) for _, ours in wrong.values()):
        kind = ("class", "classes") if of_classes else ("output", "outputs")
        return f"it has {counted(widths.pop(), *kind)}, but this study has {width:,}."
    if theirs == ours[::-1]:
        return f"{quoted(key)} is transposed: {list(theirs)} where {architecture} has {list(ours)}."
    return f"{quoted(key)} is {list(theirs)} where {architecture} has {list(ours)}."


def _first(items: list[str], count: int = 3) -> str:
    rest = len(items) - count
    return ", ".join(items[:count]) + (f" and {rest:,} more" if rest > 0 else "")
