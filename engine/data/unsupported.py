"""Data of tasks that Dataloupe does not have: object detection and segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import datasets
import pyarrow as pa

from engine.data.pictures import SUFFIXES
from engine.store.errors import DataError

_BOXES: Final = frozenset(
    {"bbox", "bboxes", "box", "boxes", "bounding_box", "bounding_boxes", "objects", "detections"}
    | {"annotations", "xmin", "x_min", "keypoints"}
)
_MASKS: Final = frozenset(
    {"mask", "masks", "segmentation", "segmentations", "segmentation_mask", "semantic_mask"}
    | {"segmentation_map", "panoptic", "instance_mask", "rle", "encodedpixels", "polygon"}
    | {"polygons"}
)
_TASKS: Final = (
    "The tasks are classification, multi-label classification and regression, of pictures or texts."
)


def refuse_label_of_other_task(table: datasets.Dataset, columns: Sequence[str]) -> None:
    """Raise DataError if a column of labels holds boxes, masks or pictures."""
    for name in columns:
        if name not in table.column_names:
            continue
        feature = table.features[name]
        if isinstance(feature, datasets.Image) or _is_picture(feature):
            raise _refusal("segmentation", f"the labels (column {name!r}) are pictures")
        kind = table.features.arrow_schema.field(name).type
        if _holds_boxes(kind) or (name.lower() in _BOXES and not _is_flat(kind)):
            raise _refusal("object detection", f"the labels (column {name!r}) are boxes")
        if name.lower() in _MASKS and not _is_flat(kind):
            raise _refusal("segmentation", f"the labels (column {name!r}) are masks")
        if _is_text(kind):
            _refuse_texts(table, name)


def refuse_columns_of_other_tasks(table: datasets.Dataset) -> None:
    """Raise DataError if columns show that the data are of another task. Call it where no column
    fits as label."""
    for names, task, what in (
        (_BOXES, "object detection", "boxes"),
        (_MASKS, "segmentation", "masks"),
    ):
        found = [name for name in table.column_names if name.lower() in names]
        if found:
            raise _refusal(task, f"the column {found[0]!r} holds {what}")
    others = [
        name
        for name in table.column_names
        if isinstance(table.features[name], datasets.Image) or _is_picture(table.features[name])
    ]
    if len(others) > 1:
        raise _refusal("segmentation", f"the columns {', '.join(others[:3])} hold pictures")


def _refuse_texts(table: datasets.Dataset, name: str) -> None:
    few = table.select(range(min(len(table), 100))).select_columns([name]).with_format("arrow")
    texts = [text for text in few[:][name].to_pylist() if text]
    if texts and all(Path(text).suffix.lower() in SUFFIXES for text in texts):
        raise _refusal("segmentation", f"the labels (column {name!r}) name picture files")
    if any('"bbox"' in text or "'bbox'" in text for text in texts):
        raise _refusal("object detection", f"the labels (column {name!r}) are boxes")


def _refusal(task: str, why: str) -> DataError:
    return DataError(
        f"This looks like {task}, which is not supported: {why}. {_TASKS} For one of these, name "
        "its column as `label` under [data]."
    )


def _is_picture(feature: Any) -> bool:
    return (isinstance(feature, datasets.Value) and "binary" in feature.dtype) or (
        isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_flat(kind: pa.DataType) -> bool:
    """Whether a cell is one value, such as a class that happens to be called like that."""
    return not (_is_list(kind) or pa.types.is_struct(kind))


def _holds_boxes(kind: pa.DataType) -> bool:
    """Lists of lists or of objects, or objects with a list or with a field that is named so."""
    if _is_list(kind):
        inner = kind.value_type
        return _is_list(inner) or bool(pa.types.is_struct(inner))
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return any(
            field.name.lower() in _BOXES | _MASKS or not _is_flat(field.type) for field in fields
        )
    return False
