"""Small sources of pictures in files, and the same study with pictures copied and by reference."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from engine import Study

N_TRAIN, N_TEST = 90, 30
_SPEC = """\
name = "Referenced"

[data]
source = "{source}"
id = "file"
pictures = "{mode}"

[task]
image_size = 24
resize = "crop"

[algorithms.net]
architecture = "mlp"
architecture_options = {{ widths = [16] }}
epochs = 2
batch_size = 16
checkpoints = 1

[search]
top_k = 5
map_epochs = 5
"""


def jpeg(seed: int) -> bytes:
    """A picture with a few patches of color, each seed of another size."""
    patches = np.random.default_rng(seed).integers(0, 255, (3, 4, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(patches).resize((60 + seed % 40, 50), Image.Resampling.BICUBIC).save(
        file, "JPEG"
    )
    return file.getvalue()


def pictures() -> dict[str, dict[str, bytes]]:
    """Split → path below it → encoded picture: two classes."""
    found: dict[str, dict[str, bytes]] = {"train": {}, "test": {}}
    for split, n, first in (("train", N_TRAIN, 0), ("test", N_TEST, 1000)):
        for number in range(n):
            found[split][f"{'ab'[number % 2]}/{number:03d}.jpg"] = jpeg(first + number)
    return found


def write_folder(folder: Path) -> Path:
    """The pictures as files in class folders."""
    for split, files in pictures().items():
        for name, content in files.items():
            path = folder / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


def study_of(folder: Path, source: Path | str, mode: str) -> Study:
    """A study of a source, not built."""
    folder.mkdir(parents=True)
    (folder / "study.toml").write_text(_SPEC.format(source=source, mode=mode))
    return Study.open(folder)


def write_tar(folder: Path, shards: int = 2) -> Path:
    """The pictures as WebDataset shards, with the class of each."""
    folder.mkdir(parents=True)
    for split, files in pictures().items():
        for shard in range(shards):
            with tarfile.open(folder / f"{split}-{shard:06d}.tar", "w") as tar:
                size = -(-len(files) // shards)
                for name, content in [*files.items()][shard * size : (shard + 1) * size]:
                    stem = name.removesuffix(".jpg")
                    for member, data in ((name, content), (f"{stem}.cls", stem[:1].encode())):
                        info = tarfile.TarInfo(member)
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
    return folder


def write_parquet(folder: Path, rows: int = 16, compression: str = "snappy") -> Path:
    """The pictures as the Hugging Face library saves them, in row groups of so many rows."""
    folder.mkdir(parents=True)
    for split, files in pictures().items():
        struct = pa.StructArray.from_arrays(
            [pa.array(files.values(), pa.binary()), pa.array(files.keys(), pa.string())],
            names=["bytes", "path"],
        )
        labels = [name[:1] for name in files]
        table = pa.table({"image": struct, "label": labels})
        middle = len(files) // 2
        for shard, part in enumerate((table[:middle], table[middle:])):
            path = folder / f"{split}-{shard:05d}-of-00002.parquet"
            pq.write_table(part, path, row_group_size=rows, compression=compression)
    return folder


def write_plain_parquet(folder: Path) -> Path:
    """The same, not compressed, as newer versions of the library save pictures."""
    return write_parquet(folder, compression="none")
