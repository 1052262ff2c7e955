"""Disk space of uploads: kept files and arriving files together never exceed the quota."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine import store
from engine.store import layout, scratch_folders
from engine.store.errors import UploadError
from engine.store.io_errors import open_no_link
from engine.store.scratch_folders import make_scratch_folder
from engine.store.walk import files_below, paths_in, total_size
from engine.study.reader import StudyReader

_INCOMING = ".incoming-"


def used_bytes(study: StudyReader) -> int:
    """Total size of the kept files, in bytes."""
    return total_size(layout.uploaded_weights_files(study.root))


@contextlib.contextmanager
def incoming(study: StudyReader, sizes: Sequence[int]) -> Iterator[list[Path]]:
    """Reserve temporary files of these sizes, to be overwritten and moved; the rest is removed.

    Raises:
        UploadError: Together with kept and arriving files, they would exceed the quota.
    """
    with locked(study):
        remove_left_behind(study)
        _check_quota(study, sum(sizes))
        folder, alive = make_scratch_folder(layout.uploads_folder(study.root), _INCOMING)
        paths = [folder / f"{number}.safetensors" for number in range(len(sizes))]
        for path, size in zip(paths, sizes, strict=True):
            with path.open("wb") as file:
                file.truncate(size)  # a sparse file: its full size counts, but takes no space yet
    try:
        yield paths
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # whoever comes next removes what is left
        alive.close()


def remove_left_behind(study: StudyReader) -> None:
    """Remove what interrupted uploads left. Call this only while holding `locked`."""
    store.remove_leftovers(layout.uploads_folder(study.root))
    scratch_folders.remove_left_behind(layout.uploads_folder(study.root), _INCOMING)


@contextlib.contextmanager
def locked(study: StudyReader) -> Iterator[None]:
    """Hold the lock on the list of uploads, which is separate from the lock of a build."""
    layout.uploads_folder(study.root).mkdir(exist_ok=True)
    with open_no_link(layout.uploads_folder(study.root) / ".lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_quota(study: StudyReader, more: int) -> None:
    used = used_bytes(study)
    folders = paths_in(layout.uploads_folder(study.root), f"{_INCOMING}*")
    arriving = sum(total_size(files_below(folder)) for folder in folders)
    quota = study.spec.uploads.quota_mib * 2**20
    if used + arriving + more > quota:
        others = f", others that are arriving now use {_mib(arriving)}" if arriving else ""
        raise UploadError(
            f"No space: uploads use {_mib(used)} of {_mib(quota)} MiB{others}, and this one needs "
            f"{_mib(more)} more. Delete some, or raise `quota_mib` under [uploads] in study.toml."
        )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f}"
