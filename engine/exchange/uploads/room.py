"""Disk space of uploads: kept files and arriving files together never exceed the quota."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine import store
from engine.store import layout
from engine.store.errors import UploadError
from engine.study.reader import StudyReader

_INCOMING = ".incoming-"
_ALIVE = "alive"
"""Locked by the process that fills its folder, so a folder without that lock was left behind."""


def used_bytes(study: StudyReader) -> int:
    """Total size of the kept files, in bytes."""
    return _sizes(layout.uploaded_weights_files(study.root))


@contextlib.contextmanager
def incoming(study: StudyReader, sizes: Sequence[int]) -> Iterator[list[Path]]:
    """Reserve temporary files of these sizes, to be overwritten and moved; the rest is removed.

    Raises:
        UploadError: Together with kept and arriving files, they would exceed the quota.
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
                file.truncate(size)  # a sparse file: its full size counts, but takes no space yet
    try:
        yield paths
    finally:
        shutil.rmtree(folder)
        alive.close()


def remove_left_behind(study: StudyReader) -> None:
    """Remove what interrupted uploads left. Call this only while holding `locked`."""
    store.remove_leftovers(layout.uploads_folder(study.root))
    for folder in layout.uploads_folder(study.root).glob(f"{_INCOMING}*"):
        unless_in_use = contextlib.suppress(FileNotFoundError, BlockingIOError)
        with unless_in_use, (folder / _ALIVE).open() as alive:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


@contextlib.contextmanager
def locked(study: StudyReader) -> Iterator[None]:
    """Hold the lock on the list of uploads, which is separate from the lock of a build."""
    layout.uploads_folder(study.root).mkdir(exist_ok=True)
    with (layout.uploads_folder(study.root) / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_quota(study: StudyReader, more: int) -> None:
    used = used_bytes(study)
    arriving = _sizes(layout.uploads_folder(study.root).glob(f"{_INCOMING}*/*"))
    quota = study.spec.uploads.quota_mib * 2**20
    if used + arriving + more > quota:
        others = f", others that are arriving now use {_mib(arriving)}" if arriving else ""
        raise UploadError(
            f"No space: uploads use {_mib(used)} of {_mib(quota)} MiB{others}, and this one needs "
            f"{_mib(more)} more. Delete some, or raise `quota_mib` under [uploads] in study.toml."
        )


def _sizes(paths: Iterator[Path] | Sequence[Path]) -> int:
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # deleted in the meantime
            total += path.stat().st_size
    return total


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f}"
