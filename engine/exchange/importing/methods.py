"""Bring a score matrix made elsewhere into a study, as a method of one of its algorithms.

The matrix is streamed from its files into the study's shards, and ranked and indexed like scores
of our own. Nothing is claimed of it that its tool did not say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine import store
from engine.build.build import build_data, writing
from engine.build.method_files import remove_method, write_method_in_blocks
from engine.build.stages.search import Job, rank_and_index
from engine.exchange.importing import KINDS
from engine.exchange.importing.source import Blocks, Rows, oriented
from engine.store import layout
from engine.store.errors import ImportingError
from engine.store.layout import OWN_METHODS, SPLITS
from engine.store.records import Import, Progress
from engine.store.spec import checked_name
from engine.study.methods import has_scores, imported_methods
from engine.study.names import resolve_algorithm
from engine.study.nearest import did_you_mean
from engine.study.rankings import read_top
from engine.study.reader import StudyReader

CODE = 1
"""Raised whenever the same files would give other scores."""
_CLEAR = 1.5
"""So many times chance is no chance any more."""


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        method: Its name in the study, of `algorithm`.
        was_there: The same scores had been imported before.
        notes: What a person should know: how the axes were told apart, and whether the scores
            look as if examples and signs were the study's.
    """

    algorithm: str
    method: str
    was_there: bool
    notes: tuple[str, ...]


def import_scores(
    study: StudyReader,
    kind: str,
    path: str | Path,
    name: str | None = None,
    algorithm: str | None = None,
    array: str | None = None,
    rows: Rows | None = None,
    negate: bool = False,
    replace: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Imported:
    """Import scores, then rank and index them. The study's data are read first if need be.

    A second call with the same files goes on where the first was stopped.

    Args:
        kind: One of `engine.exchange.importing.KINDS`.
        path: A file or folder of that kind.
        name: Of the method; None: the kind.
        algorithm: Whose predictions the scores explain; None: the study's first.
        array: Which array, module or experiment, where the files hold several.
        rows: What a row of the matrix stands for, where the shape does not tell.
        negate: Positive scores oppose; turn them round.
        replace: Put them in place of other scores that were imported under this name.
        on_progress: Called as the work goes on.

    Raises:
        ImportingError: The files cannot be used, do not fit the study, or the name is taken.
        DataloupeError: No such algorithm; and what reading the data raises.
    """
    report = on_progress or (lambda progress: None)
    if kind not in KINDS:
        raise ImportingError(f"There is no kind {kind!r} of scores; kinds are {', '.join(KINDS)}.")
    algorithm = resolve_algorithm(study, algorithm)
    method = _method_name(name or kind)
    source = KINDS[kind].read(Path(path), array)
    build_data(study, report)
    dataset = study.dataset
    blocks = oriented(source, dataset.n_test, dataset.n_train, rows)
    about = Import(
        tool=source.tool,
        files={file.name: store.file_digest(file) for file in source.files},
        shape=list(source.matrix.shape),
        rows=blocks.rows,
        negated=negate,
        settings=dict(source.settings),
        dataset=dataset.fingerprint,
    )
    fingerprint = store.fingerprint_of("import", CODE, asdict(about))
    with writing(study):
        was_there = _is_there(study, algorithm, method, fingerprint, replace)
        if not was_there:
            write_method_in_blocks(
                study,
                algorithm,
                method,
                _checked(blocks, negate, algorithm, report),
                _badge(about, method, kind),
                fingerprint,
                {"import": asdict(about)},
            )
        if not has_scores(study, algorithm, method):
            report(Progress("search", algorithm, 0, 1))
            rank_and_index(Job(study.root, algorithm, method))
        report(Progress("search", algorithm, 1, 1))
    notes = [blocks.note, _plausibility(study, algorithm, method)]
    return Imported(algorithm, method, was_there, tuple(filter(None, notes)))


def remove_import(study: StudyReader, method: str, algorithm: str | None = None) -> None:
    """Remove imported scores and what was made of them.

    Raises:
        ImportingError: The algorithm has no imported scores of this name.
    """
    algorithm = resolve_algorithm(study, algorithm)
    with writing(study):
        imports = imported_methods(study, algorithm)
        if method not in imports:
            known = ", ".join(imports) or "none"
            raise ImportingError(
                f"{algorithm} has no imported scores {method!r}; imported are: {known}."
                f"{did_you_mean(method, imports)}"
            )
        remove_method(study, algorithm, method)


def _method_name(name: str) -> str:
    try:
        checked_name(name)
    except ValueError as error:
        raise ImportingError(f"{name!r} cannot be the name of a method: {error}.") from error
    if name in OWN_METHODS:
        raise ImportingError(f"{name!r} is a method of Dataloupe's own; choose another --name.")
    return name


def _is_there(
    study: StudyReader, algorithm: str, method: str, fingerprint: str, replace: bool
) -> bool:
    """Whether these very scores are there. Other ones must be allowed to be replaced."""
    if not layout.method_file(study.root, algorithm, method).exists():
        return False
    if store.json_fingerprint(layout.method_file(study.root, algorithm, method)) == fingerprint:
        return True
    if not replace:
        raise ImportingError(
            f"{algorithm} has other scores under the name {method!r}. Choose another --name, or "
            "add --replace."
        )
    return False


def _checked(
    blocks: Blocks, negate: bool, algorithm: str, report: Callable[[Progress], None]
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """The blocks as they are to be stored. All 0 is refused: it is what a failed run leaves."""
    total = blocks.n_test * blocks.n_train
    done, some = 0, False
    for tests, trains, block in blocks.read():
        some = some or bool(block.any())
        yield tests, trains, -block if negate else block
        done += block.size
        report(Progress("import", algorithm, done, total))
    if not some:
        raise ImportingError(
            f"{blocks.source.path}: all scores are 0. Was the tool that made them run to its end?"
        )


def _plausibility(study: StudyReader, algorithm: str, method: str) -> str:
    """Whether strong scores go with labels. A shape cannot tell whether the tool saw the examples
    in the study's order, or whether its positive scores support; this mostly does."""
    labels = {split: study.table(split)["label"].to_numpy() for split in SPLITS}
    top = read_top(study, algorithm, method)
    shares = {}
    for sign in ("support", "oppose"):
        strongest = top[f"{sign}_index"][:, 0]
        found = strongest >= 0
        same = labels["train"][strongest[found]] == labels["test"][found]
        shares[sign] = float(same.mean()) if len(same) else 0.0
    frequencies = [pd.Series(labels[split]).value_counts(normalize=True) for split in SPLITS]
    chance = float((frequencies[0] * frequencies[1]).sum())
    words = (
        f"The strongest supporter has the label of its test example in {shares['support']:.0%} of "
        f"cases, the strongest opposer in {shares['oppose']:.0%}; {chance:.0%} would be chance."
    )
    if shares["oppose"] > max(shares["support"], _CLEAR * chance):
        words += " If positive scores oppose there, import them again with --negate --replace."
    elif shares["support"] < min(_CLEAR * chance, 1):
        words += " Did the tool see the examples in the order of this study?"
    return words


def _badge(about: Import, method: str, kind: str) -> Mapping[str, Any]:
    label = method if about.tool is None or method == kind else f"{method} by {about.tool}"
    made = "" if about.tool is None else f", made by {about.tool}"
    said = ", ".join(f"{name} {value}" for name, value in about.settings.items())
    more = f" ({said}); nothing else" if said else "; nothing"
    files = ", ".join(about.files)
    return {
        "method": f"{label}, imported",
        "reason": f"Imported from {files}{made}{more} is known of how these scores were computed.",
    }
