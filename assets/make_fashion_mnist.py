"""Make `fashion-mnist/*.parquet` from the idx files of Debian's package `dataset-fashion-mnist`.

    sudo apt install dataset-fashion-mnist
    python assets/make_fashion_mnist.py [/usr/share/datasets/fashion-mnist]

Takes the first 5,000 training and 1,000 test pictures, in their order. Pictures are lossless PNG;
the schema carries the `datasets` features, so `datasets.load_dataset("parquet", ...)` and the hub's
viewer show pictures and class names. The same idx files and versions of Pillow and pyarrow give
the same bytes; any versions give the same pictures.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip
"""From the README of zalandoresearch/fashion-mnist."""
SPLITS = {"train": ("train", 5000), "test": ("t10k", 1000)}
IDX = Path("/usr/share/datasets/fashion-mnist")


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped idx file: 0, 0, type 8 (bytes), dimensions; big-endian uint32 sizes; data."""
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise SystemExit(f"{path} is no idx file of bytes.")
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:start], ">u4")
    return np.frombuffer(content[start:], np.uint8).reshape(shape)


def png(pixels: np.ndarray) -> bytes:
    """Encode uint8 [height, width] as the smallest PNG that Pillow can make."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def make(idx: Path, target: Path) -> None:
    """Write both splits into the folder `target`."""
    features = {"image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    for split, (prefix, count) in SPLITS.items():
        pictures = read_idx(idx / f"{prefix}-images-idx3-ubyte.gz")[:count]
        labels = read_idx(idx / f"{prefix}-labels-idx1-ubyte.gz")[:count]
        rows = {
            "image": [{"bytes": png(picture), "path": None} for picture in pictures],
            "label": labels.astype(np.int64),
        }
        table = pa.table(rows, schema=schema)
        pq.write_table(table, target / f"{split}.parquet", compression="zstd", row_group_size=1000)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else IDX, Path(__file__).parent / "fashion-mnist")
