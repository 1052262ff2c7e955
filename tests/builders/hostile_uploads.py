"""The attack corpus: hostile and foreign files, made by rule, byte for byte the same each time.

    python -m tests.builders.hostile_uploads FOLDER

Every file is small, or sparse. `make_corpus` needs the weights of a model that fits the study, to
break them one thing at a time. Each attack says words that its refusal must hold; a file that runs
anything leaves the canary.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

GOOD_NAME = "model.safetensors"


@dataclass(frozen=True)
class Attack:
    """A file that must be refused.

    Attributes:
        path: Where it lies.
        name: What its sender says it is called.
        says: Words of the refusal.
    """

    path: Path
    name: str
    says: str


class _Canary:
    """Unpickling this makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


def safetensors(
    tensors: Mapping[str, np.ndarray], dtypes: Mapping[str, str] | None = None, **metadata: str
) -> bytes:
    """A right file, written by rule."""
    header, data = header_of(tensors, dtypes)
    if metadata:
        header = {"__metadata__": metadata, **header}
    return framed(json.dumps(header).encode(), data)


def header_of(
    tensors: Mapping[str, np.ndarray], dtypes: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a right file."""
    names = {"f4": "F32", "f8": "F64", "f2": "F16", "i8": "I64", "i4": "I32", "u1": "U8"}
    header: dict[str, Any] = {}
    data = b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        dtype = (dtypes or {}).get(name, names[array.dtype.str[1:]])
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        data += raw
    return header, data


def framed(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A header with its length in front and data behind."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def make_corpus(folder: Path, weights: Mapping[str, np.ndarray], canary: Path) -> list[Attack]:
    """Write the corpus.

    Args:
        folder: An empty one.
        weights: A state dict that fits; float32.
        canary: The file that an attack that runs would make.
    """
    folder.mkdir(parents=True, exist_ok=True)
    attacks: list[Attack] = []
    good = safetensors(weights)
    names = list(weights)
    first, last = names[0], names[-1]

    def add(
        what: str, content: bytes | Callable[[Path], None], says: str, name: str = GOOD_NAME
    ) -> None:
        path = folder / f"{len(attacks):03d}-{what}"
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
        attacks.append(Attack(path, name, says))

    def header(change: Callable[[dict[str, Any], bytes], Any]) -> bytes:
        """The good file with its header changed; a change may give other data."""
        entries, data = header_of(weights)
        changed = change(entries, data)
        return framed(json.dumps(entries).encode(), data if changed is None else changed)

    def raw_header(text: bytes) -> bytes:
        return framed(text, header_of(weights)[1])

    def arrays(**changed: np.ndarray | None) -> dict[str, np.ndarray]:
        found = {**weights, **{k: v for k, v in changed.items() if v is not None}}
        return {k: v for k, v in found.items() if k in weights or changed.get(k) is not None}

    def with_first(key: str, value: Any) -> bytes:
        return header(lambda entries, _: entries[first].__setitem__(key, value))

    # Other files under a model's name.
    payload = _Canary(canary)
    for protocol in (0, 2, 4):
        message = "not a safetensors|pickle|truncated|damaged"
        add(f"pickle-{protocol}", pickle.dumps(payload, protocol), message)
    add("pickle-bare-code", f"cos\nsystem\n(S'touch {canary}'\ntR.".encode(), "not a safetensors")
    add("pickle-then-safetensors", pickle.dumps(payload, 2) + good, "pickle|not a safetensors")
    add("pickle-with-brace", b"\x80\x02......{" + pickle.dumps(payload), "damaged")
    add("torch-zip", _zip({"archive/data.pkl": pickle.dumps(payload)}), "zip archive")
    add("zip-bomb", _zip({"data": b"\0" * 20_000_000}), "zip archive")
    add("zip-in-zip", _zip({"a.zip": _zip({"b": b"\0" * 1_000_000})}), "zip archive")
    add("zip-of-safetensors", _zip({GOOD_NAME: good}), "zip archive")
    add("empty-zip", _zip({}), "empty zip")
    add("gzip", gzip.compress(good, mtime=0), "gzip")
    add("gzip-bomb", gzip.compress(b"\0" * 20_000_000, mtime=0), "gzip")
    add("bzip2", bz2.compress(good[:1000]), "bzip2")
    add("xz", lzma.compress(good[:1000]), "xz")
    add("tar", _tar({GOOD_NAME: good[:100]}), "not a safetensors|damaged|truncated")
    add("npy", _npy(np.zeros(4)), "NumPy")
    add("npy-of-objects", _npy(np.array([payload], dtype=object)), "NumPy")
    add("hdf5", b"\x89HDF\r\n\x1a\n" + b"\0" * 64, "HDF5")
    add("gguf", b"GGUF" + b"\0" * 64, "GGUF")
    add("script", f"#!/bin/sh\ntouch '{canary}'\n".encode(), "script")
    add("program", b"\x7fELF" + b"\0" * 64, "program")
    add(
        "html", f"<script>fetch('file://{canary}')</script>".encode(), "not a safetensors|truncated"
    )
    add("json", json.dumps({"a": 1}).encode(), "not a safetensors|truncated")

    # Length and text of the header.
    add("empty", b"", "empty")
    add("one-byte", b"\0", "truncated")
    add("eight-bytes", struct.pack("<Q", 0), "truncated")
    add("zero-header", struct.pack("<Q", 0) + b"{}", "damaged")
    add("header-2-60", framed(b"{}", length=2**60), "declares a header")
    add("header-2-64", framed(b"{}", length=2**64 - 1), "declares a header")
    add("header-one-too-long", framed(b"{}", length=3), "declares a header")
    add("header-too-large", framed(b"{" + b" " * 3_000_000 + b"}"), "at most")
    add("no-tensor", framed(b"{}"), "any tensors")
    add("only-metadata", framed(b'{"__metadata__":{"a":"b"}}'), "any tensors")
    add("not-utf-8", raw_header(b'{"\xff\xfe":1}'), "UTF-8")
    add("utf-16", raw_header(b"{" + "{}".encode("utf-16")), "UTF-8|JSON")
    add("not-json", raw_header(b"{this is not json}"), "JSON")
    add("deep-json", raw_header(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "JSON")
    add("endless-number", raw_header(b'{"a":' + b"9" * 100_000 + b"}"), "JSON|dtype")
    add("nan-in-json", raw_header(b'{"a":NaN}'), "NaN")
    add("text-behind-json", raw_header(b'{"a":1} {"b":2}'), "JSON")
    entry = json.dumps(header_of(weights)[0][first])
    twice = f'{{"{first}":{entry},"{first}":{entry}}}'.encode()
    add("name-twice", raw_header(twice), "twice")
    add("key-twice", raw_header(b'{"a":{"dtype":"F32","dtype":"F32"}}'), "twice")
    add("metadata-no-texts", raw_header(b'{"__metadata__":{"a":[1]},"a":{}}'), "metadata")
    many = {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(11_000)}
    add("too-many-tensors", framed(json.dumps(many).encode()), "at most")

    # What it says of a tensor.
    add("unknown-dtype", with_first("dtype", "F4096"), "dtype")
    add("object-dtype", with_first("dtype", "O"), "dtype")
    add("dtype-no-text", with_first("dtype", ["F32"]), "dtype")
    add("negative-shape", with_first("shape", [-1, 4]), "shape")
    add("billion-elements", with_first("shape", [10**9]), "data_offsets span")
    add("overflowing-shape", with_first("shape", [2**62, 2**62, 4]), "data_offsets span")
    add("shape-beyond-64-bits", with_first("shape", [2**70]), "shape")
    add("shape-of-fractions", with_first("shape", [1.5]), "shape")
    add("shape-of-truths", with_first("shape", [True]), "shape")
    add("shape-no-list", with_first("shape", "4"), "shape")
    add("too-many-dimensions", with_first("shape", [1] * 100_000), "shape")
    add("offsets-turned", with_first("data_offsets", [8, 0]), "data_offsets")
    add("offsets-negative", with_first("data_offsets", [-8, 8]), "data_offsets")
    add("offsets-overflowing", with_first("data_offsets", [0, 2**64]), "data_offsets")
    add("offsets-three", with_first("data_offsets", [0, 1, 2]), "data_offsets")
    add("offsets-beyond-the-file", _moved(weights, last, 2**40), "gap|truncated")
    add("overlapping", _overlapping(weights), "overlaps")
    add("gap", _moved(weights, last, 64), "gap")
    add("missing-key", header(lambda e, _: e[first].pop("shape") and None), "shape")
    add("extra-key", with_first("code", "import os"), "must have exactly")
    add("entry-no-object", header(lambda e, _: e.__setitem__(first, [1, 2])), "damaged")
    add("cut-short", good[:-8], "truncated")
    add("cut-in-the-header", good[:40], "declares a header")
    add("appended", good + pickle.dumps(payload), "appended")
    add("name-of-a-tensor-empty", safetensors({"": np.zeros(2, np.float32)}), "name")
    add("name-of-a-tensor-null", safetensors({"a\0b": np.zeros(2, np.float32)}), "name")
    add("name-of-a-tensor-long", safetensors({"a" * 5000: np.zeros(2, np.float32)}), "name")
    dunder = {"__class__.__init__.__globals__": np.zeros(2, np.float32)}
    add("name-of-a-tensor-dunder", safetensors(dunder), "known architecture")
    add(
        "name-of-a-tensor-path",
        safetensors({"../../x": np.zeros(2, np.float32)}),
        "known architecture",
    )

    # A right file of a wrong model.
    matrix = next(name for name in names if weights[name].ndim == 2)
    head = names[-2]  # the linear layer that gives logits
    add("missing-tensor", safetensors({k: weights[k] for k in names[:-1]}), "it does not have")
    extra = {**weights, "extra.weight": np.ones(3, np.float32)}
    add("extra-tensor", safetensors(extra), "it has the unknown")
    add("transposed", safetensors(arrays(**{matrix: weights[matrix].T})), "transposed|where")
    fewer = {head: weights[head][:-1], last: weights[last][:-1]}
    add("other-classes", safetensors(arrays(**fewer)), "classes")
    add(
        "another-architecture",
        safetensors({"conv.weight": np.ones((3, 3), np.float32)}),
        "known architecture",
    )
    copies = {f"{who}.{k}": v for who in ("student", "teacher") for k, v in weights.items()}
    add("two-models", safetensors(copies), "2 times")
    add("whole-numbers", safetensors({k: v.astype("<i4") for k, v in weights.items()}), "I32")
    for what, value in (("nan", np.nan), ("inf", np.inf), ("minus-inf", -np.inf)):
        add(what, safetensors(arrays(**{last: np.full_like(weights[last], value)})), "NaN")
    hidden = weights[first].copy()
    hidden.flat[-1] = np.nan
    add("one-nan", safetensors(arrays(**{first: hidden})), "NaN")
    add("all-zeros", safetensors({k: np.zeros_like(v) for k, v in weights.items()}), "is 0")
    add("overflowing-outputs", safetensors({k: v + 3e37 for k, v in weights.items()}), "NaN|infin")
    halves = {k: np.full(v.shape, 1e300) for k, v in weights.items()}
    add("overflowing-float64", safetensors(halves), "NaN|infinite")
    wide = {"trunk.1.weight": (65_536, 60_000), "trunk.1.bias": (65_536,)}
    add("giant-layer-in-a-small-file", _promising(wide), "truncated")

    # Size, and names.
    add("5-GB-sparse", lambda path: _sparse(path, 5 * 10**9, good[:4096]), "at most")
    add("1-TB-sparse", lambda path: _sparse(path, 10**12, b""), "at most")
    for what, name in NAMES.items():
        add(f"name-{what}", good[:-4], "truncated", name)
    return attacks


NAMES = {
    "parents": "../../../../tmp/escaped.safetensors",
    "absolute": "/etc/passwd",
    "windows": "C:\\Windows\\system32\\evil.safetensors",
    "null": "a\0.safetensors",
    "html": "<img src=x onerror=alert(1)>.safetensors",
    "newlines": "a\nb\r\nc.safetensors",
    "escapes": "\x1b[31mred\x1b[0m.safetensors",
    "right-to-left": "\u202egnp.safetensors",
    "long": "a" * 5000,
    "empty": "",
    "dots": "..",
    "formula": "=cmd|' /C calc'!A0",
}
"""What is odd about a file's name → the name."""


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _tar(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _sparse(path: Path, size: int, start: bytes) -> None:
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def _moved(weights: Mapping[str, np.ndarray], name: str, by: int) -> bytes:
    """A tensor's place moved behind where the others end."""
    entries, data = header_of(weights)
    start, end = entries[name]["data_offsets"]
    entries[name]["data_offsets"] = [start + by, end + by]
    return framed(json.dumps(entries).encode(), data + b"\0" * min(by, 64))


def _overlapping(weights: Mapping[str, np.ndarray]) -> bytes:
    """Two tensors in one place."""
    entries, data = header_of(weights)
    twin = dict(next(iter(entries.values())))
    return framed(json.dumps({**entries, "twin": twin}).encode(), data)


def _promising(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """A header that promises large tensors, with next to nothing behind it."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape, dtype=np.int64))
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    return framed(json.dumps(entries).encode(), b"\0" * 64)


def fitting_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded weights of these shapes, small enough for finite outputs."""
    rng = np.random.default_rng(seed)
    return {
        name: (0.05 * rng.standard_normal(shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def mlp_shapes(inputs: int, width: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the built-in `mlp` with one hidden layer."""
    return {
        "trunk.1.weight": (width, inputs),
        "trunk.1.bias": (width,),
        "head.weight": (classes, width),
        "head.bias": (classes,),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    made = make_corpus(
        options.folder,
        fitting_weights(mlp_shapes(784, 32, 10)),
        options.folder / "canary",
    )
    print(f"{len(made)} files in {options.folder}")
