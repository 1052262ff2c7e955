"""Read, check and encode the dataset, in `data/`.

For each split the stage writes row shards of arrays, tables and thumbnail sheets; or, where
pictures are kept by reference, of what is not in the pixels, tables and references. `dataset.json`,
written last, describes the dataset and holds its fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from engine import store
from engine.build.referencing import digests, headers, keeps_references, write_references
from engine.build.run import Run
from engine.build.tasks import task_of
from engine.data.fitting import as_encoding, is_by_reference
from engine.data.thumbnails import SPRITES_PER_SHEET, sprite_sheet
from engine.store import layout
from engine.store.errors import DataError
from engine.store.layout import ROWS_PER_SHARD, SPLITS, Split
from engine.store.records import Dataset, Progress
from engine.store.spec import validate_options
from engine.study.reader import StudyReader
from engine.tasks import outside, settle

if TYPE_CHECKING:
    import datasets

    from engine.build.encoding import EncodedShard

CODE = 4
"""Increment when the same source would be encoded differently."""
BY_REFERENCE = (
    "Pictures stay where they are: the study keeps the place and a checksum of each, and refuses "
    "files that have changed."
)


def run(run: Run) -> None:
    """Encode the missing shards of both splits, then describe the dataset."""
    study = run.study
    fingerprint = data_fingerprint(study)
    if study.has_data:
        store.read_json(layout.dataset_file(study.root), fingerprint)
        dataset = study.dataset
        if all(_first_missing(study, s, dataset.rows(s), dataset.encoding) is None for s in SPLITS):
            layout.data_begun_file(study.root).unlink(missing_ok=True)
            run.report(Progress("data", None, 1, 1))
            return
    run.report(Progress("data", None, 0, 1))
    # The Hugging Face library takes seconds to import, and a built study does not need it.
    from engine.build.encoding import dataset_fingerprint, encode_split
    from engine.data.headers import with_headers
    from engine.data.label_kinds import label_texts
    from engine.data.sources import load_source

    task = task_of(study)
    options = validate_options(task.options, study.spec.task, layout.spec_file(study.root))
    options = settle(study.spec.task.name, options, study.spec.algorithms, study.root)
    source = load_source(study.spec.data, study.root, seed=study.spec.seed, kind=task.labels)
    sources: dict[Split, datasets.Dataset] = {"train": source.train, "test": source.test}
    references: dict[Split, pa.Table] = {}
    if keeps_references(study.spec.data, task, list(sources.values()), options):
        if not study.has_data:
            _drop_changed(study, sources, source.classes, {}, fingerprint)
        references = write_references(run, sources, fingerprint)
        planned = with_headers(source.train, headers(references["train"]))
        encoding = task.plan_encoding(planned, options, source.classes)
        assert task.fit is not None
        encoding |= as_encoding(task.fit(options, encoding))
        encoded = {split: rows.remove_columns("input") for split, rows in sources.items()}
    else:
        encoding = task.plan_encoding(source.train, options, source.classes)
        if not study.has_data:
            _drop_changed(study, sources, source.classes, encoding, fingerprint)
        encoded = sources
    cell = encoding.get("cell", 0)
    written: list[Path] = []
    contents: dict[str, list[tuple[dict[str, np.ndarray], list[str]]]] = {}
    for split in SPLITS:
        rows = encoded[split]
        shards = range(-(-len(rows) // ROWS_PER_SHARD))
        first = _first_missing(study, split, len(rows), encoding)
        start = len(rows) if first is None else first * ROWS_PER_SHARD
        for shard in encode_split(rows, task, options, encoding, ROWS_PER_SHARD, start):
            texts = label_texts(task.labels, shard.labels, source.classes)
            written.append(_write_shard(study, split, shard, texts, cell, fingerprint))
        contents[split] = [_content(study, split, shard, fingerprint) for shard in shards]
        if references:
            for number, (arrays, ids) in enumerate(contents[split]):
                some = references[split].slice(number * ROWS_PER_SHARD, len(ids))
                arrays["input"] = digests(some)
    content_fingerprint = dataset_fingerprint(contents, source.classes, encoding)
    _refuse_changed(study, content_fingerprint, written)
    remarks = task.remarks(
        source.test,
        encoding,
        {split: [arrays for arrays, _ in contents[split]] for split in SPLITS},
    )
    dataset = Dataset(
        fingerprint=content_fingerprint,
        source=source.description,
        task=task.name,
        views=list(task.views),
        labels=task.labels,
        outcomes=task.outcomes,
        output=task.outputs[0].name,
        output_title=task.outputs[0].title,
        width=task.width(source.classes),
        n_train=len(source.train),
        n_test=len(source.test),
        classes=source.classes,
        encoding=encoding,
        cell=cell,
        warnings=[*source.warnings, *remarks.warnings],
        notes=[*source.notes, *remarks.notes, *([BY_REFERENCE] if references else [])],
        choices=[asdict(choice) for choice in task.output_choices],
        predicted=task.predicted,
    )
    store.write_json(layout.dataset_file(study.root), asdict(dataset), fingerprint)
    layout.data_begun_file(study.root).unlink(missing_ok=True)
    run.report(Progress("data", None, 1, 1))


def _content(
    study: StudyReader, split: Split, shard: int, fingerprint: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays and ids of a shard."""
    arrays = store.read_tensors(layout.arrays_file(study.root, split, shard), fingerprint)
    table = store.read_table(layout.table_file(study.root, split, shard), fingerprint)
    return arrays, table["id"].to_pylist()


def _drop_changed(
    study: StudyReader,
    sources: Mapping[Split, datasets.Dataset],
    classes: Sequence[str],
    encoding: Mapping[str, Any],
    fingerprint: str,
) -> None:
    """Remove an interrupted stage's shards whose source rows have changed since.

    Also record the source's fingerprints before anything is written.
    """
    from engine.data.raw import raw_fingerprints

    raw = {
        split: raw_fingerprints(rows, ROWS_PER_SHARD, classes, encoding)
        for split, rows in sources.items()
    }
    path = layout.data_begun_file(study.root)
    before = store.read_json(path, fingerprint)["raw"] if path.exists() else {}
    for split in SPLITS:
        known = dict(enumerate(before.get(split, [])))
        for shard, found in enumerate(raw[split]):
            if known.get(shard) != found:
                layout.arrays_file(study.root, split, shard).unlink(missing_ok=True)
                layout.references_file(study.root, split, shard).unlink(missing_ok=True)
    store.write_json(path, {"raw": raw}, fingerprint)


def _refuse_changed(study: StudyReader, fingerprint: str, written: Sequence[Path]) -> None:
    """Check that shards which were lost and read again have not changed.

    Raises:
        DataError: They have changed. They are removed, as all other files depend on the old data.
    """
    if study.has_data and study.dataset.fingerprint != fingerprint:
        for path in written:
            path.unlink()
        raise DataError(
            f"{study.spec.data.source} has changed since {study.root} read it, and old and new "
            "data are never mixed. Restore the source, or run `dataloupe build "
            f"{study.root} --rebuild data`, which reads all data again."
        )


def data_fingerprint(study: StudyReader) -> str:
    """Fingerprint of the spec's [data] and [task]; `Dataset.fingerprint` is that of the content."""
    spec = study.spec
    known = study.dataset.encoding if study.has_data else None
    sampled = spec.data.train_limit is not None or spec.data.test_limit is not None
    # Keys that are not used leave studies from before they existed as they are.
    unused = {"classes"} if spec.data.classes is None else set()
    unused |= {"pictures"} if spec.data.pictures == "auto" else set()
    return store.fingerprint_of(
        "data",
        CODE,
        spec.data.model_dump(exclude=unused),
        spec.task.model_dump(),
        spec.seed if sampled else None,  # without a sample, another seed needs no other data
        *outside(spec.task, spec.algorithms, study.root, known),
    )


def _first_missing(
    study: StudyReader, split: Split, rows: int, encoding: Mapping[str, Any]
) -> int | None:
    """Number of the first shard with a missing file; None if no file is missing."""
    referenced = is_by_reference(encoding)
    has_sheets = bool(encoding.get("cell")) and not referenced
    for shard, start in enumerate(range(0, rows, ROWS_PER_SHARD)):
        last = min(start + ROWS_PER_SHARD, rows) - 1
        sheets = (
            range(start // SPRITES_PER_SHEET, last // SPRITES_PER_SHEET + 1) if has_sheets else ()
        )
        files = [
            layout.arrays_file(study.root, split, shard),
            layout.table_file(study.root, split, shard),
        ]
        files += [layout.sprite_file(study.root, split, sheet) for sheet in sheets]
        files += [layout.references_file(study.root, split, shard)] if referenced else []
        if not all(file.exists() for file in files):
            return shard
    return None


def _write_shard(
    study: StudyReader,
    split: Split,
    shard: EncodedShard,
    labels: Sequence[str],
    cell: int,
    fingerprint: str,
) -> Path:
    """Write a shard's files, the arrays last; return the path of the arrays."""
    number = shard.start // ROWS_PER_SHARD
    thumbnails = shard.thumbnails or []
    sheets = {}
    for first in range(0, len(thumbnails), SPRITES_PER_SHEET):
        path = layout.sprite_file(study.root, split, (shard.start + first) // SPRITES_PER_SHEET)
        with store.atomic(path) as temporary:
            temporary.write_bytes(sprite_sheet(thumbnails[first : first + SPRITES_PER_SHEET], cell))
        sheets[path.name] = store.file_digest(path)
    columns = {"id": shard.ids, "label": labels, **shard.columns}
    store.write_table(layout.table_file(study.root, split, number), pa.table(columns), fingerprint)
    # A sprite sheet cannot hold its own checksum, so the arrays of the same rows do.
    metadata = {"sheets": sheets}
    path = layout.arrays_file(study.root, split, number)
    store.write_tensors(path, shard.arrays, fingerprint, metadata)
    return path
