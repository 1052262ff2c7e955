"""Which files or folders of a source are a split. The rule, in order; the first that fits is read:

1. A file or folder that `train` or `test` under [data] names in full, such as `train = "a/b.csv"`.
2. A folder of `save_to_disk`: the files that its `state.json` names.
3. One file that is named like the split: `train.csv` (`.csv.gz`, `.parquet`, ...).
4. All shards `train-00000-of-00002.parquet`, here or in `data/`; one that is missing is an error.
5. The folder `train/`, or `split=train/`: pictures in class folders (at least two, if there are
   tables beside them); else files of rows, by the same names, else all of them; else folders
   `column=value/` with such files, which give a column.
6. Folders `column=value/` of which one level is `split=train/`.
7. WebDataset shards: `train.tar`, or `train-000000.tar`, ...; also in the folder `train/`, if it
   has nothing of the above.

Hidden files and folders are never data, nor are files of rows whose names begin with `_`. What
might be meant but is not read is said. Two formats of the same name are refused: naming the file in
full (1) decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pyarrow as pa

from engine.data.reading.arrow_files import STATE, read_saved, saved_splits
from engine.data.reading.files import Reading, name_and_format, quiet, read_files, rows_of
from engine.data.reading.folders import has_class_folders, is_hidden, read_class_folders
from engine.data.reading.rows import Rows, as_dataset, joined, no_split
from engine.data.reading.tar_files import SUFFIX, read_tar, tar_shards
from engine.data.reading.texts import ColumnType
from engine.store.errors import DataError

_SHARD: Final = re.compile(r"-(\d+)-of-(\d+)(?:-[0-9a-f]+)?")
_PARTITION: Final = re.compile(r"([^=/]+)=(.*)")
_ABOUT_ROWS: Final = {"dataset_info.json", "dataset_infos.json", STATE}
_NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"


def read_split(folder: Path, split: str, reading: Reading) -> Rows:
    """Read a split of a folder, by the rule above.

    Raises:
        DataError: It has no such split, or more than one source of it.
    """
    named = folder / split
    if named.is_file() and name_and_format(named) is not None:
        return read_files([named], reading)
    if named.is_file() and named.suffix == SUFFIX:
        return read_tar([named])
    saved = saved_splits(folder)
    if saved is not None:
        if split not in saved:
            raise no_split(folder, split, saved)
        return _saved(named)
    files, others = named_files(folder, split)
    if not files:
        files, more = named_files(folder / "data", split)
        others += more
    if files:
        notes = _not_read(folder, split, others, named.is_dir())
        return read_files(files, reading).noting(*notes)
    inner = named if named.is_dir() else folder / f"split={split}"
    if inner.is_dir():
        return _read_split_folder(inner, split, reading).noting(*_not_read(folder, split, others))
    found = [path.name for path in _visible(folder)]
    if any(_PARTITION.fullmatch(name) for name in found):
        rows = read_partitions(folder, reading, {"split": split})
        if rows is not None:
            return rows
    if shards := tar_shards(folder, split):
        return read_tar(shards)
    raise no_split(folder, split, found)


def named_files(folder: Path, split: str) -> tuple[list[Path], list[Path]]:
    """(files of rows that are named like a split, others whose names begin like that).

    Raises:
        DataError: Two formats have such files, or a shard is missing.
    """
    exact: list[Path] = []
    shards: list[tuple[int, int, Path]] = []
    others: list[Path] = []
    for path in _visible(folder) if folder.is_dir() else []:
        known = name_and_format(path)
        if known is None or not path.is_file():
            continue
        rest = known[0].removeprefix(split) if known[0].startswith(split) else None
        shard = _SHARD.fullmatch(rest) if rest is not None else None
        if rest == "":
            exact.append(path)
        elif shard is not None:
            shards.append((int(shard[1]), int(shard[2]), path))
        elif rest is not None:
            others.append(path)
    if len(exact) > 1:
        raise _ambiguous(exact, split)
    if exact:
        return exact, [*[path for *_, path in shards], *others]
    return _whole(shards, split), others


def _whole(shards: Sequence[tuple[int, int, Path]], split: str) -> list[Path]:
    """The paths of shards in order, all of which are there."""
    if not shards:
        return []
    paths = [path for *_, path in sorted(shards)]
    if len({_format(path) for path in paths}) > 1 or len({of for _, of, _ in shards}) > 1:
        raise _ambiguous(paths, split)
    numbers, of = sorted(number for number, *_ in shards), shards[0][1]
    if len(set(numbers)) < len(numbers):
        raise _ambiguous(paths, split)
    missing = sorted(set(range(of)) - set(numbers))
    if missing:
        raise DataError(
            f"{paths[0].parent} has {len(paths)} of the {of} files {split}-…-of-{of:05d}: number "
            f"{missing[0]} is missing."
        )
    return paths


def _ambiguous(paths: Sequence[Path], split: str, below: str = "") -> DataError:
    """The error for more than one source of a split; `below` leads from the source to them."""
    names = [below + path.name for path in paths]
    return DataError(
        f"{paths[0].parent} has {len(names)} sources of the split {split!r}: "
        f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}. Remove the wrong ones, or "
        f'name the right one in full under [data], such as `train = "{names[0]}"`.'
    )


def _not_read(
    folder: Path, split: str, others: Sequence[Path], has_folder: bool = False
) -> list[str]:
    """What is named like the split and was not read, as a note."""
    names = [path.name for path in others]
    if has_folder and (has_class_folders(folder / split) or _tables(folder / split)):
        names.append(f"{split}/")
    if not names:
        return []
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return [f"Not read for the split {split!r}, as their names are others: {shown}."]


# --- the folder of a split ----------------------------------------------------------------------


def _read_split_folder(folder: Path, split: str, reading: Reading) -> Rows:
    if (folder / STATE).is_file():
        return _saved(folder)
    tables = _tables(folder)
    # One folder of pictures beside a table is no class: the table names them.
    if has_class_folders(folder, at_least=2 if tables else 1):
        rows = read_class_folders(folder)
        if not tables:
            return rows
        names = ", ".join(path.name for path in tables[:5])
        return rows.noting(
            f"The pictures in the class folders of {folder.name} are read, not {names}. (To read a "
            f'table instead, name it: `train = "{folder.name}/{tables[0].name}"`.)'
        )
    if tables:
        files, others = named_files(folder, split)
        if not files:
            files, others = tables, []
        if len({_format(path) for path in files}) > 1:
            raise _ambiguous(files, split, f"{folder.name}/")
        notes = _not_read(folder, split, [path for path in tables if path not in files])
        if len(files) > 1 and not others and files == tables:
            notes = [f"{len(files)} files of {folder.name} are read, in the order of their names."]
        return read_files(files, reading).noting(*notes)
    partitions = read_partitions(folder, reading, {})
    if partitions is not None:
        return partitions
    if shards := [path for path in _visible(folder) if path.suffix == SUFFIX and path.is_file()]:
        return read_tar(shards)
    return read_class_folders(folder)


def _tables(folder: Path) -> list[Path]:
    """Files of rows directly in a folder, sorted by name."""
    return [
        path
        for path in _visible(folder)
        if path.is_file()
        and not path.name.startswith("_")
        and path.name not in _ABOUT_ROWS
        and name_and_format(path) is not None
    ]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))


def _format(path: Path) -> str:
    known = name_and_format(path)
    return known[1] if known else ""


def _saved(folder: Path) -> Rows:
    with quiet():
        return rows_of(read_saved(folder), [folder / STATE])


# --- folders `column=value/` ----------------------------------------------------------------------


def read_partitions(folder: Path, reading: Reading, wanted: dict[str, str]) -> Rows | None:
    """Files in folders `column=value/`, at any depth, with these columns; None if there are none.

    Args:
        wanted: Only the files with these values; the columns are left out.
    """
    found = [
        (path, values)
        for path, values in _partitioned(folder, {})
        if all(values.get(column) == value for column, value in wanted.items())
    ]
    if not found:
        return None
    paths = [path for path, _ in found]
    if len({_format(path) for path in paths}) > 1:
        raise DataError(f"{folder} mixes formats: {paths[0]} and others. Remove the wrong ones.")
    columns = [name for name in found[0][1] if name not in wanted]
    types = {name: ColumnType(as_written=True) for name in columns}
    for _, values in found:
        for name in columns:
            types[name].see(pa.array([values.get(name)], pa.string()))
    tables = []
    for path, values in found:
        table = read_files([path], reading).table.data.table
        for name in columns:
            if name in table.column_names:
                raise DataError(f"{path} has a column {name!r}, as have the folders around it.")
            cells = pa.array([values.get(name)] * len(table), pa.string())
            table = table.append_column(name, cells.cast(types[name].type))
        tables.append(table)
    note = f"Columns of folder names in {folder.name}: {', '.join(columns)}." if columns else ""
    rows = Rows(as_dataset(joined(tables, paths)), folder)
    return rows.noting(note) if note else rows


def _partitioned(
    folder: Path, values: dict[str, str | None]
) -> list[tuple[Path, dict[str, str | None]]]:
    found: list[tuple[Path, dict[str, str | None]]] = []
    for path in _visible(folder):
        match = _PARTITION.fullmatch(path.name)
        if match and path.is_dir():
            value = None if match[2] == _NO_VALUE else unquote(match[2])
            found += _partitioned(path, {**values, match[1]: value})
    return found + ([(path, values) for path in _tables(folder)] if values else [])
