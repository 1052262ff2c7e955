"""Uploads: one or more checkpoints of one architecture, and where they came from.

A study treats an upload as an algorithm with the user's own weights, so everything that it computes
and shows for an algorithm works for an upload, too.
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
"""With fewer checkpoints, a comparison is called indicative."""


@dataclass(frozen=True)
class UploadedFile:
    """One checkpoint.

    Attributes:
        sha256: Of its bytes; its name in the store.
        size: Bytes.
        name: Its name on the owner's machine. Untrusted text: only shown, escaped.
    """

    sha256: str
    size: int
    name: str


@dataclass(frozen=True)
class Upload:
    """Checkpoints that were uploaded as one learning algorithm.

    Attributes:
        id: Its name as an algorithm of the study.
        name: Its name for people.
        who: Who uploaded it; empty if nobody signs in.
        when: Time in UTC, ISO 8601.
        preprocessing: The inputs of the model, in words, as shown to its owner.
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
        """Whether there are so few checkpoints that chance may look like a difference."""
        return len(self.files) < ENOUGH

    @property
    def wanted(self) -> int:
        """How many more checkpoints would be enough."""
        return max(0, ENOUGH - len(self.files))

    @property
    def algorithm(self) -> AlgorithmSpec:
        """The upload as study.toml would describe it."""
        return AlgorithmSpec(
            architecture=self.architecture,
            architecture_options=self.architecture_options,
            weights=[f"uploads/files/{file.sha256}.safetensors" for file in self.files],
        )


_UPLOADS: FileCache[Upload] = FileCache(most=256)


def upload_id(digests: list[str], architecture: str, options: dict[str, Any]) -> str:
    """The same for the same files, in any order, with the same architecture."""
    return f"upload-{store.fingerprint_of('upload', sorted(digests), architecture, options)[:12]}"


def preprocessing_of(encoding: dict[str, Any]) -> str:
    """The inputs of a model of the study, to follow “fed with”."""
    if "shape" not in encoding:
        return "token ids of the study's own vocabulary."
    channels, height, width = encoding["shape"]
    mean, std = (", ".join(f"{number:g}" for number in encoding[key]) for key in ("mean", "std"))
    kind = "grey" if channels == 1 else "RGB"
    return f"{kind} pictures of {height} × {width}, pixels / 255, minus {mean}, divided by {std}."


def write_upload(root: Path, upload: Upload) -> None:
    """Write the description of an upload."""
    store.write_json(
        layout.upload_file(root, upload.id), asdict(upload), fingerprint=upload.dataset
    )


def read_upload(path: Path) -> Upload:
    """Read what `write_upload` wrote. Raises StoreError if it is missing or broken."""
    return _UPLOADS.get(path, lambda: _read_upload(path))


def _read_upload(path: Path) -> Upload:
    content = store.read_json(path)
    files = tuple(UploadedFile(**file) for file in content.pop("files"))
    return Upload(files=files, **content)


def read_uploads(root: Path) -> dict[str, Upload]:
    """All uploads of a study, newest first. Broken ones are skipped: `doctor` lists them."""
    found = []
    for path in layout.upload_files(root):
        with contextlib.suppress(StoreError):
            found.append(read_upload(path))
    return {u.id: u for u in sorted(found, key=lambda u: (u.when, u.id), reverse=True)}
