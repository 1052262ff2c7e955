"""What is kept of an upload: one or many checkpoints of one architecture, and where they came from.

A study sees an upload as an algorithm with the user's own weights, so whatever it can compute and
show of an algorithm, it can of an upload.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine import store
from engine.store import layout
from engine.store.cache import FileCache
from engine.store.errors import StoreError
from engine.store.spec import AlgorithmSpec

ENOUGH = 5
"""Checkpoints from which on a comparison is no longer called indicative."""


@dataclass(frozen=True)
class UploadedFile:
    """One checkpoint.

    Attributes:
        sha256: Of its bytes; its name in the store.
        size: Bytes.
        name: What its owner called it. Text to show, escaped, and nothing else.
    """

    sha256: str
    size: int
    name: str


@dataclass(frozen=True)
class Upload:
    """Checkpoints that somebody uploaded as one learning algorithm.

    Attributes:
        id: Its name as an algorithm of the study.
        name: What people call it.
        who: Who uploaded it; empty where nobody signs in.
        when: Time in UTC, ISO 8601.
        preprocessing: What the model is fed, as its owner was told.
        dataset: Fingerprint of the study's data at that time.
    """

    id: str
    name: str
    who: str
    when: str
    architecture: str
    architecture_options: dict[str, Any]
    files: tuple[UploadedFile, ...]
    preprocessing: str
    dataset: str

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def indicative(self) -> bool:
        """Whether it has so few checkpoints that chance in training may show as a difference."""
        return len(self.files) < ENOUGH

    @property
    def wanted(self) -> int:
        """How many more checkpoints would do."""
        return max(0, ENOUGH - len(self.files))

    @property
    def algorithm(self) -> AlgorithmSpec:
        """The upload as study.toml would have it."""
        return AlgorithmSpec(
            architecture=self.architecture,
            architecture_options=self.architecture_options,
            weights=[f"uploads/files/{file.sha256}.safetensors" for file in self.files],
        )


_UPLOADS: FileCache[Upload] = FileCache(most=256)


def upload_id(digests: list[str], architecture: str, options: dict[str, Any]) -> str:
    """The same for the same files, in any order, as the same architecture."""
    return f"upload-{store.fingerprint_of('upload', sorted(digests), architecture, options)[:12]}"


def preprocessing_of(encoding: dict[str, Any]) -> str:
    """What a model of the study is fed, to follow “fed with”."""
    if "shape" not in encoding:
        return "token ids of the study's own vocabulary."
    channels, height, width = encoding["shape"]
    mean, std = (", ".join(f"{number:g}" for number in encoding[key]) for key in ("mean", "std"))
    kind = "grey" if channels == 1 else "RGB"
    return f"{kind} pictures of {height} × {width}, pixels / 255, minus {mean}, divided by {std}."


def write_upload(root: Path, upload: Upload) -> None:
    """Write, or write again, what an upload is."""
    store.write_json(
        layout.upload_file(root, upload.id), asdict(upload), fingerprint=upload.dataset
    )


def read_upload(path: Path) -> Upload:
    """Read what `write_upload` wrote. Raises StoreError where it is not whole."""
    return _UPLOADS.get(path, lambda: _read_upload(path))


def _read_upload(path: Path) -> Upload:
    content = store.read_json(path)
    files = tuple(UploadedFile(**file) for file in content.pop("files"))
    return Upload(files=files, **content)


def read_uploads(root: Path) -> dict[str, Upload]:
    """All uploads of a study, newest first. What is broken is left out: `doctor` names it."""
    found = []
    for path in layout.upload_files(root):
        with contextlib.suppress(StoreError):
            found.append(read_upload(path))
    return {u.id: u for u in sorted(found, key=lambda u: (u.when, u.id), reverse=True)}
