"""The planted shortcut of `dataloupe case-study shortcut`: a patch that identifies one class.

Half of the embedded pictures of `CLASS`, training and test, get a small yellow patch in a corner.
`covered_mlp` is the built-in MLP with that corner covered, so it cannot see the patch and the MLP
can: the difference between the two is known. assets/specs/case-shortcut.toml names both.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from engine.data import asset
from engine.store.layout import SPLITS

if TYPE_CHECKING:
    import datasets
    from torch import nn

CLASS = 2
"""Pullovers, which are easily confused with coats and shirts."""
SIDE = 5
COLOUR = (255, 220, 0)
CARRIES = "patch"
"""The column that marks the pictures with the patch."""


def pictures() -> datasets.DatasetDict:
    """The embedded pictures in color, some of `CLASS` with the patch; `CARRIES` marks them."""
    import datasets

    from engine.data.reading.rows import as_dataset

    source = asset("fashion-mnist")
    tables = {split: pq.ParquetFile(source / f"{split}.parquet").read() for split in SPLITS}
    return datasets.DatasetDict({split: _planted(as_dataset(tables[split])) for split in SPLITS})


def _planted(rows: datasets.Dataset) -> datasets.Dataset:
    import datasets

    labels = np.array(rows["label"])
    carries = (labels == CLASS) & (np.random.default_rng(len(labels)).random(len(labels)) < 0.5)
    contents = rows.cast_column("image", datasets.Image(decode=False))["image"]
    patched = [
        {"bytes": _with_patch(content["bytes"]) if yes else content["bytes"], "path": None}
        for content, yes in zip(contents, carries, strict=True)
    ]
    rows = rows.remove_columns("image").add_column(CARRIES, carries)
    return rows.add_column("image", patched, feature=datasets.Image(decode=False))


def _with_patch(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as grey:
        picture = grey.convert("RGB")
    picture.paste(COLOUR, (0, 0, SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def covered_mlp(encoding: dict[str, Any], n_classes: int, *, widths: list[int]) -> nn.Module:
    """`mlp` with the patch's corner replaced by the mean of all pictures.

    Args:
        encoding: Has `shape`.
        n_classes: Number of logits.
        widths: As for `mlp`.
    """
    import torch
    from torch import nn

    from engine.models.classifier import Classifier
    from engine.models.mlp import mlp

    class Covered(nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            keep = torch.ones_like(pictures)
            keep[..., :SIDE, :SIDE] = 0
            return pictures * keep

    model = cast(Classifier, mlp(encoding, n_classes, widths=widths))
    return Classifier(nn.Sequential(Covered(), *cast(nn.Sequential, model.trunk)), model.head)
