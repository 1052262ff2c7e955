"""Files of weights that are copies of each other, whatever else differs in the files."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from engine.training.weight_names import bare_name

_COUNTER = "num_batches_tracked"
"""BatchNorm's count of training steps, which no trained model's output depends on."""


def tensors_digest(*paths: Path) -> str:
    """SHA-256 of the tensors in a safetensors file, or in the parts of one: names, shapes, values.

    Metadata, the order of tensors, prefixes of wrappers and how numbers are stored do not count:
    all floats are taken as float32, as models use them, and −0 is 0.
    """
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, framework="pt")) for path in paths]
        found = [(bare_name(name), name, file) for file in files for name in file.keys()]  # noqa: SIM118
        for bare, name, file in sorted(found, key=lambda one: one[:2]):
            if bare.rpartition(".")[2] == _COUNTER:
                continue
            tensor = file.get_tensor(name)
            kind = "float" if tensor.is_floating_point() else "integer"
            tensor = tensor.to(torch.float32) + 0.0 if kind == "float" else tensor.to(torch.int64)
            digest.update(f"{bare}\0{kind}\0{list(tensor.shape)}\0".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def tensor_shapes(path: Path) -> list[list[int]]:
    """Shapes of the tensors in a safetensors file, sorted: files that differ here are no copies."""
    with safe_open(path, framework="pt") as file:
        return sorted(
            list(file.get_slice(name).get_shape())
            for name in file.keys()  # noqa: SIM118
            if bare_name(name).rpartition(".")[2] != _COUNTER
        )


def copies_among(digests: Sequence[str]) -> dict[int, int]:
    """Number of each repeated file → number of the first file with the same digest."""
    first: dict[str, int] = {}
    return {
        number: first[digest]
        for number, digest in enumerate(digests)
        if first.setdefault(digest, number) != number
    }
