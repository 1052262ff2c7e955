"""The reader of a study: the folder that holds everything computed for one dataset.

Opening a study and reading its results never imports torch. The other files of this package hold
functions that take a reader and read one kind of result; `engine.api.Study` adds the computations.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from engine import store
from engine.store import layout
from engine.store.cache import FileCache, read_cached_table
from engine.store.errors import SpecError, StoreError
from engine.store.layout import FORMAT, ROWS_PER_SHARD, Split
from engine.store.records import Dataset
from engine.store.spec import AlgorithmSpec, StudySpec, load_spec
from engine.study.uploads import Upload, read_uploads

if TYPE_CHECKING:
    import pandas as pd


_DATASETS: FileCache[Dataset] = FileCache(most=16)


class StudyReader:
    """A study's folder, opened for reading.

    Attributes:
        root: The folder.
        spec: Its study.toml.
    """

    def __init__(self, root: Path, spec: StudySpec) -> None:
        self.root = root
        self.spec = spec

    @classmethod
    def open(cls, root: str | Path) -> Self:
        """Open a study's folder.

        Raises:
            SpecError: There is no study.toml, or it is invalid.
            StoreError: The study was made by a newer or older Dataloupe.
        """
        study = cls(Path(root), _spec_of(Path(root)))
        path = layout.format_file(study.root)
        if path.exists():
            store.read_json(path)
        return study

    @property
    def has_data(self) -> bool:
        return layout.dataset_file(self.root).exists()

    @property
    def dataset(self) -> Dataset:
        """Description of the current data. Raises StoreError before they are built."""
        path = layout.dataset_file(self.root)
        return _DATASETS.get(path, lambda: Dataset(**store.read_json(path)))

    def table(self, split: Split) -> pd.DataFrame:
        """`id`, `label` (class name) and the columns displayed by the task; one row per example.

        A text that is missing, such as the `file` of a picture without one, is None.
        """
        # One chunk: rows of a table of many are found one by one.
        stored = read_table(self.root, split, self.dataset.rows(split)).combine_chunks()
        table: pd.DataFrame = stored.to_pandas()
        for name in stored.column_names:
            if pa.types.is_string(stored[name].type) and stored[name].null_count:
                table[name] = table[name].astype(object).where(table[name].notna(), None)
        return table

    @property
    def uploads(self) -> dict[str, Upload]:
        """Uploaded models by their id; newest first."""
        return read_uploads(self.root)

    @property
    def algorithms(self) -> dict[str, AlgorithmSpec]:
        """The algorithms of study.toml, then the uploaded ones."""
        uploaded = {name: upload.algorithm for name, upload in self.uploads.items()}
        return {**self.spec.algorithms, **uploaded}

    def checkpoints(self, algorithm: str) -> int:
        """Number of checkpoints in the spec."""
        spec = self.algorithms[algorithm]
        return len(spec.weights) or spec.checkpoints


def open_to_repair(root: str | Path) -> StudyReader:
    """Open a study whose `store.json` may be broken. Raises as `StudyReader.open` otherwise."""
    return StudyReader(Path(root), _spec_of(Path(root)))


def _spec_of(root: Path) -> StudySpec:
    """The spec of a study in a format that can be read, as far as that is known."""
    if not root.is_dir():
        raise SpecError(f"{root} is not a folder. `dataloupe init {root}` makes a study there.")
    spec = load_spec(root / "study.toml")
    found = _format(layout.format_file(root))
    if found is not None and found > FORMAT:
        raise StoreError(
            f"{root} was made by a newer Dataloupe (store format {found}; this one reads "
            f"up to {FORMAT}). Upgrade Dataloupe, or build into a different folder."
        )
    if found is not None and found < FORMAT:
        raise StoreError(
            f"{root} was made by an older Dataloupe (store format {found}; this one reads "
            f"{FORMAT}). Build it again into a different folder."
        )
    return spec


def _format(path: Path) -> int | None:
    """The format that `store.json` names; None if it is missing or broken."""
    with contextlib.suppress(StoreError):
        found = store.read_json(path).get("format")
        return found if isinstance(found, int) else None
    # Before format 4, the checksum was this one.
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        checksum, found = content.pop("dataloupe.checksum"), content.get("format")
        del content[store.FINGERPRINT_KEY]
        if checksum == store.fingerprint_of(content) and isinstance(found, int):
            return found
    return None


def read_table(root: Path, split: Split, rows: int, columns: list[str] | None = None) -> pa.Table:
    """Columns of a split's table, joined from its shards in order; None: all columns."""
    shards = range(-(-rows // ROWS_PER_SHARD))
    parts = [read_cached_table(layout.table_file(root, split, n), columns) for n in shards]
    return pa.concat_tables(parts, promote_options="permissive")
