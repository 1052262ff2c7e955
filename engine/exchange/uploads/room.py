"""Room for uploads: what is kept, and what arrives, never take more than the quota together."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.store import layout
from engine.store.errors import UploadError
from engine.study.reader import StudyReader

_INCOMING = ".incoming-"
_ALIVE = "alive"
"""Locked by whoever fills the folder it lies in; so what nobody locks was left behind."""


def used_bytes(study: StudyReader) -> int:
    """Bytes of all files that are kept."""
    return _sizes(layout.uploaded_weights_files(study.root))


@contextlib.contextmanager
def incoming(study: StudyReader, sizes: Sequence[int]) -> Iterator[list[Path]]:
    """Files of these sizes to write over, in a folder of their own; gone at the end unless moved.

    Raises:
        UploadError: There is no room for them beside what is kept and what is arriving.
    """
    with locked(study):
        remove_left_behind(study)
        _check_quota(study, sum(sizes))
        folder = Path(tempfile.mkdtemp(dir=layout.uploads_folder(study.root), prefix=_INCOMING))
        alive = (folder / _ALIVE).open("w")
        fcntl.flock(alive, fcntl.LOCK_EX)
        paths = [folder / f"{number}.safetensors" for number in range(len(sizes))]
        for path, size in zip(paths, sizes, strict=True):
            with path.open("wb") as file:
                file.truncate(size)  # Takes no space yet, and is counted as if it did.
    try:
        yield paths
    finally:
        shutil.rmtree(folder)
        alive.close()


def remove_left_behind(study: StudyReader) -> None:
    """Remove what interrupted uploads left. Only while `locked`."""
    for folder in layout.uploads_folder(study.root).glob(f"{_INCOMING}*"):
        done_with = contextlib.suppress(FileNotFoundError, BlockingIOError)  # or being filled
        with done_with, (folder / _ALIVE).open() as alive:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


@contextlib.contextmanager
def locked(study: StudyReader) -> Iterator[None]:
    """One at a time changes the list of uploads. A build need not wait, nor be waited for."""
    layout.uploads_folder(study.root).mkdir(exist_ok=True)
    with (layout.uploads_folder(study.root) / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_quota(study: StudyReader, more: int) -> None:
    used = used_bytes(study)
    arriving = _sizes(layout.uploads_folder(study.root).glob(f"{_INCOMING}*/*"))
    quota = study.spec.uploads.quota_mib * 2**20
    if used + arriving + more > quota:
        others = f", others that arrive just now {_mib(arriving)}" if arriving else ""
        raise UploadError(
            f"No room: uploads take {_mib(used)} of {_mib(quota)} MiB{others}, and this needs "
            f"{_mib(more)} more. Delete some, or raise `quota_mib` under [uploads]."
        )


def _sizes(paths: Iterator[Path] | Sequence[Path]) -> int:
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # deleted just now
            total += path.stat().st_size
    return total


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f}"
