"""Files, folders, arrays, Hugging Face names and functions → rows of the training and test split.

Everything becomes a Hugging Face `Dataset`, memory-mapped where it is large. Local files never use
the network: only a source of the form `owner/name` that is not a path is looked up on the hub.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
from datasets.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from datasets.utils.logging import CRITICAL, get_verbosity, set_verbosity
from PIL import Image

from engine.data.assets import asset
from engine.data.ids import cell_text, with_json_ids
from engine.data.pictures import SUFFIXES
from engine.store.errors import DataError, SpecError
from engine.store.spec import DataSpec
from engine.store.trust import Code, load_code

EMBEDDED = "fashion-mnist"


@dataclass(frozen=True)
class Rows:
    """A split as its source has it; relative paths in it start at `folder`."""

    table: datasets.Dataset
    folder: Path


def read_splits(spec: DataSpec, base: Path, scratch: Path) -> tuple[Rows, Rows]:
    """Read the training and the test split.

    Args:
        base: The study's folder, where relative paths start; trusted if it may name code.
        scratch: An empty folder; files that cannot be memory-mapped are converted into it.

    Raises:
        DataError: What was not found, and where it was expected.
    """
    if spec.source.startswith("python:"):
        return _read_function(spec, base)
    path = _find(spec.source, base)
    if path is None:
        return _read_hub(spec, base)
    if path.suffix == ".npz":
        return _read_npz(path, spec)
    if path.is_file():
        return _read_single_file(path, spec, scratch)
    train, test = (_read_folder(path, name, scratch, spec.id) for name in (spec.train, spec.test))
    return train, test


def _find(source: str, base: Path) -> Path | None:
    if source == EMBEDDED:
        return asset(EMBEDDED)
    path = base / Path(source).expanduser()
    if path.exists():
        return path
    reads_like_a_hub_name = re.fullmatch(r"[\w.-]+/[\w.-]+", source)
    if not reads_like_a_hub_name or path.parent.exists() or path.suffix in (*_READERS, ".npz"):
        raise DataError(f"{path} does not exist. Set `source` under [data] to a file or a folder.")
    return None


# --- files --------------------------------------------------------------------------------------


def _read_parquet(files: list[Path], scratch: Path, ids: str | None) -> datasets.Dataset:
    full = [str(file) for file in files if pq.read_metadata(file).num_rows]
    if not full:
        raise DataError(f"{files[0]} is empty: it has no rows.")
    return datasets.Dataset.from_parquet(full, cache_dir=str(scratch))


def _read_csv(files: list[Path], scratch: Path, ids: str | None) -> datasets.Dataset:
    # Only an empty cell is missing: "NA" and "None" are names that classes have.
    return datasets.Dataset.from_csv(
        [str(file) for file in files],
        cache_dir=str(scratch),
        keep_default_na=False,
        na_values=[""],
        converters={ids: cell_text} if ids is not None else None,
    )


def _read_json(files: list[Path], scratch: Path, ids: str | None) -> datasets.Dataset:
    table = datasets.Dataset.from_json([str(file) for file in files], cache_dir=str(scratch))
    return table if ids is None else with_json_ids(table, files, ids)


def _read_arrow(files: list[Path], scratch: Path, ids: str | None) -> datasets.Dataset:
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])


_READERS: dict[str, Callable[[list[Path], Path, str | None], datasets.Dataset]] = {
    ".arrow": _read_arrow,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_json,
    ".json": _read_json,
}


def _read_files(files: list[Path], scratch: Path, ids: str | None) -> Rows:
    shown = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    empty = next((file for file in files if file.stat().st_size == 0), None)
    if empty is not None:
        raise DataError(f"{empty} is empty.")
    try:
        with _quiet():
            table = _READERS[files[0].suffix](files, scratch, ids)
    except DataError:
        raise
    except Exception as error:  # readers of five formats raise what they like on a broken file
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{shown} cannot be read as {files[0].suffix[1:]}: {reason[0]}") from error
    return Rows(table, files[0].parent)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no log lines: any error becomes one DataError."""
    were_disabled, verbosity = are_progress_bars_disabled(), get_verbosity()
    disable_progress_bars()
    set_verbosity(CRITICAL)
    try:
        yield
    finally:
        set_verbosity(verbosity)
        if not were_disabled:
            enable_progress_bars()


def _read_single_file(path: Path, spec: DataSpec, scratch: Path) -> tuple[Rows, Rows]:
    """One file with both splits; its column `split` separates them."""
    if path.suffix not in _READERS:
        known = ", ".join([*_READERS, ".npz"])
        raise DataError(f"{path} is of no known format; take one of {known}, or a folder.")
    rows = _read_files([path], scratch, spec.id)
    if "split" not in rows.table.column_names:
        raise DataError(
            f"{path} has no column `split` that separates training from test rows (columns: "
            f"{', '.join(rows.table.column_names)}). Add it, or give a folder with "
            f"{spec.train}{path.suffix} and {spec.test}{path.suffix}."
        )
    split = np.array(rows.table["split"])
    found = []
    for name in (spec.train, spec.test):
        chosen = np.flatnonzero(split == name)
        if not len(chosen):
            raise _no_split(path, name, sorted({str(value) for value in split}))
        found.append(
            Rows(
                rows.table.select(chosen, keep_in_memory=True).remove_columns("split"), rows.folder
            )
        )
    return found[0], found[1]


def _no_split(where: Path | str, name: str, found: Sequence[str]) -> DataError:
    return DataError(
        f"{where} has no split {name!r}; it has {', '.join(found) or 'nothing'}. "
        "Name its splits as `train` and `test` under [data]."
    )


# --- folders ------------------------------------------------------------------------------------


def _read_folder(folder: Path, split: str, scratch: Path, ids: str | None) -> Rows:
    """Files of a split (as people, the hub and `save_to_disk` lay them), else pictures by class."""
    for suffix in _READERS:
        files = [
            *folder.glob(f"{split}{suffix}"),
            *folder.glob(f"{split}-*{suffix}"),
            *folder.glob(f"data/{split}-*{suffix}"),
            *folder.glob(f"{split}/[!.]*{suffix}"),
        ]
        if files:
            return _read_files(sorted(files), scratch, ids)
    if not (folder / split).is_dir():
        found = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        raise _no_split(folder, split, [*found[:8], "..."] if len(found) > 8 else found)
    return _read_pictures(folder / split)


def _read_pictures(folder: Path) -> Rows:
    """One subfolder for each class; pictures may be deeper. Rows are sorted by path."""
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    classes = [name for name in classes if not name.startswith(".")]
    files: list[str] = []
    labels: list[str] = []
    for name in classes:
        found = sorted(
            str(path.relative_to(folder))
            for path in (folder / name).rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        files += found
        labels += [name] * len(found)
    if not files:
        raise DataError(
            f"{folder} holds no pictures. It should have one subfolder for each class, "
            "with its pictures inside."
        )
    table = datasets.Dataset.from_dict({"file": files, "label": labels})
    return Rows(table, folder)


# --- arrays -------------------------------------------------------------------------------------

_ARRAY_NAMES = {
    "input": ("{}_input", "x_{}", "{}_x", "{}_images"),
    "label": ("{}_label", "y_{}", "{}_y", "{}_labels"),
    "id": ("{}_id", "{}_ids"),
}


def _read_npz(path: Path, spec: DataSpec) -> tuple[Rows, Rows]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and NumPy each raise their own
        raise DataError(
            f"{path} cannot be read as .npz ({error}). Save plain arrays with numpy.savez; "
            "arrays of Python objects are not accepted."
        ) from error
    return _from_arrays(path, spec.train, arrays), _from_arrays(path, spec.test, arrays)


def _from_arrays(path: Path, split: str, arrays: Mapping[str, np.ndarray]) -> Rows:
    columns: dict[str, np.ndarray] = {}
    for column, patterns in _ARRAY_NAMES.items():
        names = [pattern.format(split) for pattern in patterns]
        name = next((name for name in names if name in arrays), None)
        if name is not None:
            columns[column] = arrays[name]
        elif column != "id":
            raise DataError(
                f"{path} has no array {names[0]!r} (nor {', '.join(names[1:])}); "
                f"it has {', '.join(arrays)}."
            )
    lengths = {column: len(array) if array.ndim else 0 for column, array in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{count} of {column}" for column, count in lengths.items())
        raise DataError(f"{path}: the arrays of {split} differ in length: {shown}.")
    for column in columns:
        if np.issubdtype(columns[column].dtype, np.floating):
            _refuse_nan(path, split, column, columns[column])
    labels = columns["label"]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{path}: labels of {split} have shape {list(labels.shape)}, not [rows].")
    content: dict[str, Any] = {"label": labels.tolist()}
    if "id" in columns:
        ids = columns["id"]
        content["id"] = ids.tolist() if ids.dtype.kind == "f" else ids.astype(str).tolist()
    if columns["input"].dtype.kind == "U":
        return Rows(
            datasets.Dataset.from_dict({"input": columns["input"].tolist(), **content}), path
        )
    pixels = _as_pixels(path, split, columns["input"])
    content["input"] = [{"bytes": _png(picture), "path": None} for picture in pixels]
    table = datasets.Dataset.from_dict(content)
    return Rows(table.cast_column("input", datasets.Image(decode=False)), path.parent)


def _refuse_nan(path: Path, split: str, column: str, array: np.ndarray) -> None:
    finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(f"{path}: {column} of {split}, row {row}, holds NaN or infinity.")


def _as_pixels(path: Path, split: str, array: np.ndarray) -> np.ndarray:
    """Pictures in any common layout → uint8 [rows, height, width] or [rows, height, width, 3|4]."""
    where = f"{path}: input of {split}"
    if array.ndim == 4 and array.shape[3] not in (1, 3, 4) and array.shape[1] in (1, 3, 4):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3, 4)):
        raise DataError(
            f"{where} has shape {list(array.shape)}; pictures are [rows, height, width], "
            "[rows, height, width, 1, 3 or 4] or [rows, 1, 3 or 4, height, width]."
        )
    if array.dtype != np.uint8:
        scaled = (
            array * 255 if array.size and array.dtype.kind == "f" and array.max() <= 1 else array
        )
        rounded = np.rint(scaled)
        if array.dtype.kind not in "iuf" or not (
            np.allclose(scaled, rounded, atol=1e-3)
            and (rounded >= 0).all()
            and (rounded <= 255).all()
        ):
            raise DataError(
                f"{where} has {array.dtype} values that are not pixels; give uint8 (0 to 255), "
                "or the same divided by 255, before any normalization."
            )
        array = rounded.astype(np.uint8)
    return array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


# --- the hub and functions ----------------------------------------------------------------------


def _read_hub(spec: DataSpec, base: Path) -> tuple[Rows, Rows]:
    try:
        splits = datasets.load_dataset(spec.source, spec.config)
    except Exception as error:  # network, access and format errors of three libraries
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{spec.source!r} is not a path in {base}, and the Hugging Face hub could not give it: "
            f"{reason[0]}"
        ) from error
    return _named_splits(splits, spec, base)


def _read_function(spec: DataSpec, base: Path) -> tuple[Rows, Rows]:
    try:
        function = load_code(Code.of(spec.source), base, ())
    except SpecError as error:
        raise DataError(f"source = {error}") from error
    return _named_splits(function(), spec, base)


def _named_splits(splits: Any, spec: DataSpec, base: Path) -> tuple[Rows, Rows]:
    if not isinstance(splits, Mapping):
        raise DataError(
            f"source = {spec.source!r} gave {type(splits).__name__}; a datasets.DatasetDict with "
            f"the splits {spec.train!r} and {spec.test!r} is needed."
        )
    for name in (spec.train, spec.test):
        if name not in splits:
            raise _no_split(repr(spec.source), name, list(splits))
        if not isinstance(splits[name], datasets.Dataset):
            raise DataError(
                f"source = {spec.source!r}: split {name!r} is {type(splits[name]).__name__}, "
                "not a datasets.Dataset."
            )
    return Rows(splits[spec.train], base), Rows(splits[spec.test], base)
