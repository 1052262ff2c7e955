"""Match the names of a file's tensors with those of a model, whatever wrapped the model.

Wrappers add segments to names: `DataParallel` and `AveragedModel` add `module.`, `torch.compile`
`_orig_mod.`, Lightning the attribute that holds the model (`model.`, `net.`), and one file may hold
a student and its teacher. A file fits if one prefix, removed from its names, gives the names and
shapes of the model. Importing this module does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

Shapes = Mapping[str, tuple[int, ...]]

_WRAPPERS = frozenset(
    ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
)
"""Segments that wrappers add anywhere in a name and that say nothing."""
_HOLDER = re.compile(
    r"(.*_)?(model|net|network|module|student|teacher|ema|swa|online|target|averaged|wrapped)(_.*)?"
)
"""Segments that hold a whole model: what stands beside it is not a part of it."""
_BOOKKEEPING = ("n_averaged", "num_batches_tracked", "position_ids")
"""Last segments of tensors that a model does not need: counters, and constants."""


@dataclass(frozen=True)
class Fit:
    """A file that has all weights of a model.

    Attributes:
        names: The model's name of each tensor → the file's. Counters that the file lacks, and what
            keeps its own values, are missing.
        ignored: Tensors of the file that belong to something else than the model.
        prefix: What the file's names have before the model's.
    """

    names: dict[str, str]
    ignored: tuple[str, ...]
    prefix: str


@dataclass(frozen=True)
class Misfit:
    """A file that does not have all weights of a model, compared as well as it can be.

    Attributes:
        choices: Prefixes that each hold a whole model; empty unless there are several.
        missing: Names of the model that the file lacks.
        unexpected: Names in the file that the model lacks.
        wrong: The model's name → (the file's shape, the model's).
    """

    choices: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)


def bare_name(name: str) -> str:
    """A tensor's name without the segments that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS) or name


def with_copies(shapes: Mapping[str, object], metadata: Mapping[str, str]) -> dict[str, str]:
    """Names that a file has by its metadata → the tensor that each is a copy of.

    `safetensors.torch.save_model` writes tied weights once, and names the others so.
    """
    return {name: kept for name, kept in metadata.items() if name not in shapes and kept in shapes}


def match_names(
    found: Shapes,
    wanted: Shapes,
    copies: Mapping[str, str] | None = None,
    ties: Sequence[Collection[str]] = (),
    optional: Collection[str] = (),
    reset: Sequence[str] = (),
) -> Fit | Misfit:
    """Find the tensor of a file for each tensor of a model.

    Args:
        found: Shapes of the file's tensors.
        wanted: Shapes of the model's.
        copies: From `with_copies`.
        ties: Groups of the model's names that are one tensor.
        optional: The model's names that may be missing; `num_batches_tracked` always may.
        reset: The model's names, or their first segments, that are not read.
    """
    sources = {name: name for name in found} | dict(copies or {})
    in_file = {bare: sources[name] for bare, name in _bare(sources).items()}
    in_model = _bare(wanted)
    model = _Model(
        {bare: name for bare, name in in_model.items() if not is_reset(name, reset)},
        {bare: wanted[name] for bare, name in in_model.items()},
        _twins(in_model, ties),
        {
            bare
            for bare, name in in_model.items()
            if name in optional or name.endswith("num_batches_tracked")
        },
    )
    views: list[_View] = []
    for cut in _common_starts(in_model):
        some = [_view(model, in_file, found, p, cut) for p in _prefixes(model, in_file, cut)]
        complete = [view for view in some if not view.missing and not view.wrong]
        if len(complete) > 1:
            return Misfit(choices=tuple(view.prefix for view in complete))
        views = complete or views + some
        if complete:
            break
    best = min(views, key=lambda view: len(view.missing) + len(view.wrong))
    holds_model = all(map(_HOLDER.fullmatch, best.prefix.split(".")[:-1]))
    unexpected: list[str] = []
    outside: list[str] = []
    for bare, name in in_file.items():
        known = name in best.seen or name.rpartition(".")[2] in _BOOKKEEPING
        inside = bare.startswith(best.prefix)
        its_name = best.cut + bare.removeprefix(best.prefix) if inside else ""
        if known or (inside and is_reset(its_name, reset)):
            continue
        (unexpected if inside or not holds_model else outside).append(name)
    if best.missing or best.wrong or unexpected:
        return Misfit((), best.missing, tuple(sorted(unexpected)), best.wrong)
    return Fit(best.names, tuple(sorted(outside)), best.prefix)


def is_reset(name: str, reset: Sequence[str]) -> bool:
    """Whether `reset` names a tensor, or a part of the model that holds it."""
    return any(
        name == part.rstrip(".") or name.startswith(part.rstrip(".") + ".") for part in reset
    )


@dataclass(frozen=True)
class _Model:
    """The model's tensors by bare names: those to read, all shapes, twins, and those that may be
    missing."""

    names: dict[str, str]
    shapes: Shapes
    twins: Mapping[str, Sequence[str]]
    optional: Collection[str]


@dataclass(frozen=True)
class _View:
    """The file as seen with `prefix` of its names replaced by `cut`."""

    prefix: str
    cut: str
    names: dict[str, str]
    missing: tuple[str, ...]
    wrong: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    seen: Collection[str]


def _view(
    model: _Model, in_file: Mapping[str, str], shapes: Shapes, prefix: str, cut: str
) -> _View:
    names, missing, wrong = {}, [], {}
    seen = set()
    for bare, name in model.names.items():
        tied = [prefix + twin.removeprefix(cut) for twin in (bare, *model.twins.get(bare, ()))]
        there = next((in_file[twin] for twin in tied if twin in in_file), None)
        if there is None:
            if bare not in model.optional:
                missing.append(name)
            continue
        seen.add(there)
        if shapes[there] != model.shapes[bare]:
            wrong[name] = (shapes[there], model.shapes[bare])
        else:
            names[name] = there
    return _View(prefix, cut, names, tuple(missing), wrong, frozenset(seen))


def _bare(names: Collection[str]) -> dict[str, str]:
    """Bare name → name; the names themselves where two would be the same."""
    bare = {bare_name(name): name for name in names}
    return bare if len(bare) == len(names) else {name: name for name in names}


def _twins(in_model: Mapping[str, str], ties: Sequence[Collection[str]]) -> dict[str, list[str]]:
    bare = {name: bare for bare, name in in_model.items()}
    return {
        bare[name]: [bare[other] for other in group if other != name]
        for group in ties
        for name in group
    }


def _common_starts(names: Collection[str]) -> list[str]:
    """Prefixes that all bare names share, the empty one first: a model may be wrapped, too."""
    starts, split = [""], [bare_name(name).split(".") for name in names]
    for parts in zip(*(segments[:-1] for segments in split), strict=False):
        if len(set(parts)) > 1:
            break
        starts.append(f"{starts[-1]}{parts[0]}.")
    return starts


def _prefixes(model: _Model, in_file: Collection[str], cut: str) -> list[str]:
    """Prefixes under which the file may hold the model; the empty one at least."""
    needed = [b for b in model.names if b not in model.optional and b not in model.twins]
    needed = needed or list(model.names)
    ends = {max(needed, key=len), needed[0], needed[-1]} if needed else set()
    found = {"": None}
    for end in sorted(bare.removeprefix(cut) for bare in ends):
        for bare in in_file:
            if bare == end or bare.endswith(f".{end}"):
                found[bare.removesuffix(end)] = None
    return list(found)
