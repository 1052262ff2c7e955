"""Import the score matrix of another tool as a method of one of the study's algorithms.

The matrix is streamed from its files into the study's shards, then ranked and indexed like
Dataloupe's own scores. Its badge states only what the tool recorded.
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
from engine.running.processes import run_jobs
from engine.store import layout
from engine.store.cache import list_names
from engine.store.errors import ImportingError
from engine.store.layout import OWN_METHODS, SPLITS
from engine.store.records import Import, Progress
from engine.store.spec_names import checked_name
from engine.study.capabilities import has
from engine.study.methods import has_scores, imported_methods
from engine.study.names import resolve_algorithm
from engine.study.nearest import did_you_mean
from engine.study.rankings import read_top
from engine.study.reader import StudyReader

CODE = 1
"""Increment when the same files would give other scores."""
_ABOVE_CHANCE = 1.5
"""A share counts as above chance from this multiple of it."""


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Attributes:
        algorithm: The algorithm whose predictions the scores attribute.
        method: The method's name in the study.
        was_there: Whether the same scores had been imported before.
        notes: Notes for the user: how the axes were identified, and whether the order of the
            examples and the signs look right.
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
    """Import scores, then rank and index them.

    The study's data are read first if necessary. An interrupted import resumes when it is called
    again with the same files.

    Args:
        kind: A key of `engine.exchange.importing.KINDS`.
        path: A file or folder of that kind.
        name: Name of the method; None: the kind.
        algorithm: The algorithm whose predictions the scores attribute; None: the study's first.
        array: Name of the array, module or experiment, if the files hold several.
        rows: What a row of the matrix is, if the shape does not show it.
        negate: Change all signs, because positive scores oppose in this tool.
        replace: Replace other scores that were imported under this name.
        on_progress: Called with the progress of the import.

    Raises:
        ImportingError: The files are unusable or do not match the study, or the name is taken.
        DataloupeError: There is no such algorithm, or the data cannot be read.
    """
    report = on_progress or (lambda progress: None)
    if kind not in KINDS:
        raise ImportingError(f"There is no kind {kind!r} of scores; kinds are {', '.join(KINDS)}.")
    algorithm = resolve_algorithm(study, algorithm)
    method = _method_name(study, algorithm, name or kind)
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
            # As a build runs it, with one thread, so that the bytes are the same.
            job = Job(study.root, algorithm, method)
            run_jobs(rank_and_index, [job], 0, lambda job, result: None)
        report(Progress("search", algorithm, 1, 1))
    notes = [blocks.note]
    if has(study, "classes"):
        notes.append(_plausibility(study, algorithm, method))
    return Imported(algorithm, method, was_there, tuple(filter(None, notes)))


def remove_import(study: StudyReader, method: str, algorithm: str | None = None) -> None:
    """Remove imported scores and everything computed from them.

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


def _method_name(study: StudyReader, algorithm: str, name: str) -> str:
    try:
        checked_name(name)
    except ValueError as error:
        raise ImportingError(f"{name!r} cannot be the name of a method: {error}.") from error
    if name.casefold() in OWN_METHODS:
        raise ImportingError(
            f"{name!r} is one of Dataloupe's own methods; choose a different name with --name."
        )
    for other in list_names(layout.methods_folder(study.root, algorithm)):
        if other != name and other.casefold() == name.casefold():
            raise ImportingError(
                f"{algorithm} already has a method {other!r}, and some disks would keep {name!r} "
                "in the same folder; choose a different name with --name."
            )
    return name


def _is_there(
    study: StudyReader, algorithm: str, method: str, fingerprint: str, replace: bool
) -> bool:
    """Whether the same scores exist. Raises ImportingError for other scores without `replace`."""
    if not layout.method_file(study.root, algorithm, method).exists():
        return False
    if store.json_fingerprint(layout.method_file(study.root, algorithm, method)) == fingerprint:
        return True
    if not replace:
        raise ImportingError(
            f"{algorithm} already has other scores under the name {method!r}. Choose a different "
            "name with --name, or add --replace."
        )
    return False


def _checked(
    blocks: Blocks, negate: bool, algorithm: str, report: Callable[[Progress], None]
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield the blocks to store. Raises ImportingError if all scores are 0: a run that failed."""
    total = blocks.n_test * blocks.n_train
    done, any_nonzero = 0, False
    for tests, trains, block in blocks.read():
        any_nonzero = any_nonzero or bool(block.any())
        yield tests, trains, -block if negate else block
        done += block.size
        report(Progress("import", algorithm, done, total))
    if not any_nonzero:
        raise ImportingError(
            f"{blocks.source.path}: all scores are 0. Check that the tool that made them finished."
        )


def _plausibility(study: StudyReader, algorithm: str, method: str) -> str:
    """Describe how often the strongest scores connect examples of the same label.

    A shape cannot show whether the tool saw the examples in the study's order, or whether positive
    scores support. This comparison with chance usually does.
    """
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
    note = (
        "The strongest supporting example has the test example's label in "
        f"{shares['support']:.0%} of cases, the strongest opposing one in {shares['oppose']:.0%}; "
        f"chance is {chance:.0%}."
    )
    if shares["oppose"] > max(shares["support"], _ABOVE_CHANCE * chance):
        note += " If positive scores oppose in this tool, import again with --negate --replace."
    elif shares["support"] < min(_ABOVE_CHANCE * chance, 1):
        note += " Check that the tool saw the examples in the study's order."
    return note


def _badge(about: Import, method: str, kind: str) -> Mapping[str, Any]:
    label = method if about.tool is None or method == kind else f"{method} by {about.tool}"
    made = "" if about.tool is None else f", made by {about.tool}"
    settings = ", ".join(f"{name} {value}" for name, value in about.settings.items())
    known = f" ({settings}). Nothing else" if settings else ". Nothing"
    files = ", ".join(about.files)
    return {
        "method": f"{label}, imported",
        "reason": f"Imported from {files}{made}{known} is known about how they were computed.",
    }
