"""Uploads: one or more checkpoints of one architecture, and where they came from.

A study treats an upload as an algorithm with the user's own weights, so everything that works for
an algorithm also works for an upload.
"""

from __future__ import annotations

import contextlib
import re
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
        sha256: SHA-256 of its bytes, which is also its name in the store.
        size: Size in bytes.
        name: Its name on the owner's machine. Untrusted text: escape it when shown.
        tensors: Digest of its tensors alone; empty for files uploaded before there was one.
    """

    sha256: str
    size: int
    name: str
    tensors: str = ""


@dataclass(frozen=True)
class Upload:
    """Checkpoints that were uploaded as one learning algorithm.

    Attributes:
        id: Its name as an algorithm of the study.
        name: Display name.
        who: User who uploaded it; empty without sign-in.
        when: Time in UTC, ISO 8601.
        preprocessing: Description of the model's inputs, as shown to its owner.
        dataset: Fingerprint of the study's data at that time.
        copies: A sentence for each given file that was a copy of another and is not kept, or that
            equals a checkpoint of the study.
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
    copies: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Total size of its files in bytes."""
        return sum(file.size for file in self.files)

    @property
    def indicative(self) -> bool:
        """Whether there are too few checkpoints to separate differences from chance."""
        return len(self.files) < ENOUGH

    @property
    def wanted(self) -> int:
        """Number of checkpoints missing to have enough."""
        return max(0, ENOUGH - len(self.files))

    @property
    def algorithm(self) -> AlgorithmSpec:
        """The upload as study.toml would describe it."""
        return AlgorithmSpec(
            architecture=self.architecture,
            architecture_options=self.architecture_options,
            weights=[f"uploads/files/{file.sha256}.safetensors" for file in self.files],
        )


_DIGEST = re.compile(r"[0-9a-f]{64}")
_UPLOADS: FileCache[Upload] = FileCache(most=256)


def upload_id(digests: list[str], architecture: str, options: dict[str, Any]) -> str:
    """An id that depends only on the files, in any order, and the architecture."""
    return f"upload-{store.fingerprint_of('upload', sorted(digests), architecture, options)[:12]}"


def preprocessing_of(encoding: dict[str, Any]) -> str:
    """Description of the inputs of the study's models, as the end of a sentence."""
    if "tokenizer" in encoding:
        return "token ids of the study's tokenizer, with attention masks."
    if "max_tokens" in encoding:
        return "token ids of the study's own vocabulary."
    if not {"shape", "mean", "std"} <= encoding.keys():
        return "as this study's task prepares them."
    channels, height, width = encoding["shape"]
    mean, std = (", ".join(f"{number:g}" for number in encoding[key]) for key in ("mean", "std"))
    kind = "grayscale" if channels == 1 else "RGB"
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
    try:
        files = tuple(UploadedFile(**file) for file in content.pop("files"))
        found = Upload(files=files, copies=tuple(content.pop("copies", ())), **content)
        # Both become names of files.
        if found.id != path.stem or not all(_DIGEST.fullmatch(file.sha256) for file in files):
            raise ValueError
        found.algorithm  # noqa: B018 - whether it is one
    except (TypeError, KeyError, ValueError) as error:
        raise store.broken(path, "it does not describe an upload") from error
    return found


def read_uploads(root: Path) -> dict[str, Upload]:
    """All uploads of a study, newest first. Broken ones are skipped: `doctor` lists them."""
    found = []
    for path in layout.upload_files(root):
        with contextlib.suppress(StoreError):
            found.append(read_upload(path))
    return {u.id: u for u in sorted(found, key=lambda u: (u.when, u.id), reverse=True)}
