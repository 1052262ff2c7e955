"""The reader of a study: the folder that holds everything computed for one dataset.

Opening a study and reading its results never imports torch. The other files of this package hold
functions that take a reader and read one kind of result; `engine.api.Study` adds the computations.
"""

from __future__ import annotations

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
        root = Path(root)
        if not root.is_dir():
            raise SpecError(f"{root} is not a folder. `dataloupe init {root}` makes a study there.")
        study = cls(root, load_spec(root / "study.toml"))
        if layout.format_file(study.root).exists():
            found = store.read_json(layout.format_file(study.root)).get("format")
            if not isinstance(found, int) or found > FORMAT:
                raise StoreError(
                    f"{root} was made by a newer Dataloupe (store format {found}; this one reads "
                    f"up to {FORMAT}). Upgrade Dataloupe, or build into a different folder."
                )
            if found < FORMAT:
                raise StoreError(
                    f"{root} was made by an older Dataloupe (store format {found}; this one reads "
                    f"{FORMAT}). Build it again into a different folder."
                )
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
        stored = read_table(self.root, split, self.dataset.rows(split))
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


def read_table(root: Path, split: Split, rows: int, columns: list[str] | None = None) -> pa.Table:
    """Columns of a split's table, joined from its shards in order; None: all columns."""
    shards = range(-(-rows // ROWS_PER_SHARD))
    parts = [read_cached_table(layout.table_file(root, split, n), columns) for n in shards]
    return pa.concat_tables(parts, promote_options="permissive")
