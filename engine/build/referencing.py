"""Keep where pictures lie: a survey of the files, shard by shard, and what it finds.

A shard of references is complete or absent, so an interrupted survey goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from engine import store
from engine.build.run import Run
from engine.data.places.place import below, source_folder
from engine.data.places.survey import DIGEST_BYTES, survey
from engine.store import layout
from engine.store.errors import DataError
from engine.store.layout import ROWS_PER_SHARD, Split
from engine.store.records import Progress
from engine.study.references import DIGEST, PLACE

if TYPE_CHECKING:
    import datasets

    from engine.store.spec import DataSpec
    from engine.tasks import Task

MOST_COPIED = 8 * 2**30
"""Bytes of pixels above which pictures are kept by reference, unless study.toml decides."""
_HEADER = ("width", "height", "grayscale", "deep")
_COLORS = 3
_AT_ONCE = 1024
"""Pictures of one job."""


@dataclass(frozen=True)
class _Job:
    """Some pictures of one shard, which a worker reads."""

    split: Split
    first: int
    places: list[str | None]
    ids: list[str]
    folder: Path | None


def keeps_references(
    spec: DataSpec, task: Task, splits: Sequence[datasets.Dataset], options: Any
) -> bool:
    """Whether a study keeps where its pictures lie, and not their pixels.

    Raises:
        DataError: study.toml asks for it, and the task or the source does not allow it.
    """
    if spec.pictures == "copy" or task.fit is None:
        if spec.pictures == "reference":
            raise DataError(
                f'pictures = "reference" under [data] does not fit the task {task.name!r}: its '
                'other inputs are made from pixels. Set pictures = "copy".'
            )
        return False
    placed = all(_all_have_places(rows) for rows in splits)
    if spec.pictures == "reference":
        if not placed:
            raise DataError(
                f"The pictures of {spec.source} cannot be kept by reference: they are no files "
                'and not in tar or Parquet files here. Set pictures = "copy" under [data].'
            )
        return True
    return placed and _pixel_bytes(splits, options) > MOST_COPIED


def _all_have_places(rows: datasets.Dataset) -> bool:
    column = rows.select_columns(["input"]).with_format("arrow")[:]["input"]
    if not pa.types.is_struct(column.type):
        return False
    found = column.combine_chunks()
    return found.field("bytes").null_count == len(found) and not found.field("path").null_count


def _pixel_bytes(splits: Sequence[datasets.Dataset], options: Any) -> int:
    """Bytes of all pixels as the models would read them, in color."""
    size = options.image_size
    if size is None:
        from engine.data.pictures import read_header

        one = splits[0][0]
        width, height = read_header(one["input"], f"example {one['id']!r}").size
    else:
        height, width = (size, size) if isinstance(size, int) else size
    return sum(map(len, splits)) * _COLORS * height * width


def write_references(
    run: Run, sources: dict[Split, datasets.Dataset], fingerprint: str
) -> dict[Split, pa.Table]:
    """Survey the pictures whose references are missing; return those of both splits.

    Raises:
        DataError: A picture is missing, damaged, too large, or outside of the source.
    """
    study = run.study
    folder = source_folder(study.spec.data.source, study.root)
    jobs: list[_Job] = []
    missing: dict[tuple[Split, int], dict[int, pa.Table]] = {}
    for split, rows in sources.items():
        for start in range(0, len(rows), ROWS_PER_SHARD):
            shard = start // ROWS_PER_SHARD
            path = layout.references_file(study.root, split, shard)
            if path.exists():
                store.read_table(path, fingerprint, columns=[])
                continue
            stop = min(start + ROWS_PER_SHARD, len(rows))
            some = rows.select_columns(["input", "id"]).with_format("arrow")[start:stop]
            places = some["input"].combine_chunks().field("path").to_pylist()
            ids = some["id"].to_pylist()
            missing[split, shard] = {}
            for first in range(0, stop - start, _AT_ONCE):
                part = slice(first, first + _AT_ONCE)
                jobs.append(_Job(split, start + first, places[part], ids[part], folder))
    total = sum(map(len, sources.values()))
    done = total - sum(len(job.places) for job in jobs)

    def keep(job: _Job, found: pa.Table) -> None:
        nonlocal done
        done += len(found)
        shard = job.first // ROWS_PER_SHARD
        parts = missing[job.split, shard]
        parts[job.first] = found
        rows = min(ROWS_PER_SHARD, len(sources[job.split]) - shard * ROWS_PER_SHARD)
        if sum(map(len, parts.values())) == rows:
            table = pa.concat_tables([parts[first] for first in sorted(parts)])
            path = layout.references_file(study.root, job.split, shard)
            store.write_table(path, table.combine_chunks(), fingerprint)
            parts.clear()
        run.report(Progress("data", None, done, total))

    run.run_jobs(_survey, jobs, keep)
    return {
        split: pa.concat_tables(
            store.read_table(layout.references_file(study.root, split, shard), fingerprint)
            for shard in range(-(-len(rows) // ROWS_PER_SHARD))
        )
        for split, rows in sources.items()
    }


def _survey(job: _Job) -> pa.Table:
    """Worker: read some pictures."""
    found = survey(job.places, job.ids, job.folder)
    headers = [one.header for one in found]
    return pa.table(
        {
            PLACE: [below(str(place), job.folder) for place in job.places],
            DIGEST: pa.array([one.digest for one in found], pa.binary(DIGEST_BYTES)),
            "width": pa.array([header.size[0] for header in headers], pa.uint32()),
            "height": pa.array([header.size[1] for header in headers], pa.uint32()),
            "grayscale": [header.grayscale for header in headers],
            "deep": [header.deep for header in headers],
        }
    )


def headers(references: pa.Table) -> pa.StructArray:
    """What the headers of the pictures tell, as `engine.data.headers.with_headers` takes it."""
    columns = [references[name].combine_chunks() for name in _HEADER]
    return pa.StructArray.from_arrays(columns, list(_HEADER))


def digests(references: pa.Table) -> np.ndarray:
    """Digests of the encoded pictures, uint8 `[n, DIGEST_BYTES]`."""
    whole = b"".join(references[DIGEST].to_pylist())
    return np.frombuffer(whole, np.uint8).reshape(-1, DIGEST_BYTES)
