"""Arrays of a `.npz` file: pictures or texts, labels and ids of both splits."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from engine.data.reading.rows import Rows
from engine.store.errors import DataError
from engine.store.spec import DataSpec

_ARRAY_NAMES = {
    "input": ("{}_input", "x_{}", "{}_x", "{}_images", "{}_texts"),
    "label": ("{}_label", "y_{}", "{}_y", "{}_labels"),
    "id": ("{}_id", "{}_ids"),
}
"""Names of arrays, with the split in place of `{}`; docs/study-toml.md lists them."""


def read_npz(path: Path, spec: DataSpec) -> tuple[Rows, Rows]:
    """Read the training and the test split of a `.npz` file.

    Raises:
        DataError: An array is missing, has another shape than its kind, or holds Python objects.
    """
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
        there = [name for name in names if name in arrays]
        if len(there) > 1:
            raise DataError(
                f"{path} has the arrays {' and '.join(there)}, which both are {column} of {split}. "
                "Remove or rename one of them."
            )
        if there:
            columns[column] = _texts(arrays[there[0]])
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
    if labels.ndim not in (1, 2):
        raise DataError(
            f"{path}: labels of {split} have shape {list(labels.shape)}, not [rows] or, with a 1 "
            "for the class, [rows, classes]."
        )
    content: dict[str, Any] = {"label": labels.tolist()}
    if "id" in columns:
        ids = columns["id"]
        content["id"] = ids.tolist() if ids.dtype.kind == "f" else ids.astype(str).tolist()
    texts = columns["input"]
    if texts.dtype.kind == "U":
        return Rows(datasets.Dataset.from_dict({"input": texts.tolist(), **content}), path.parent)
    pixels = _as_pixels(path, split, columns["input"])
    content["input"] = [{"bytes": _png(picture), "path": None} for picture in pixels]
    table = datasets.Dataset.from_dict(content)
    return Rows(table.cast_column("input", datasets.Image(decode=False)), path.parent)


def _texts(array: np.ndarray) -> np.ndarray:
    """Bytes as texts (in UTF-8, else with marks for what is not); other arrays as they are."""
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array


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
