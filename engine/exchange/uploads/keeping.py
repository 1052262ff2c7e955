"""Accept, rename, delete and expire uploads.

    upload = accept(study, [Given("mine.safetensors", file)], name="With augmentation")

Files are copied to a temporary folder inside `uploads/` and checked there. If the whole ensemble
passes, they are moved and named by their SHA-256, so a refused upload leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from engine import store
from engine.exchange.uploads.header import check_size, read_header, shown_name
from engine.exchange.uploads.room import incoming, locked, remove_left_behind
from engine.exchange.uploads.trial import Trial, Tried, try_out
from engine.running.kept_worker import KeptWorker
from engine.store import layout
from engine.store.errors import MissingFile, StoreError, UploadError
from engine.store.spec_names import is_upload_id
from engine.study.names import resolve_upload
from engine.study.reader import StudyReader
from engine.study.uploads import Upload, UploadedFile, preprocessing_of, upload_id, write_upload

_CHUNK = 2**20
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Given:
    """A file to upload.

    Attributes:
        name: Its owner's name for it. Never used as a path.
        content: Its bytes, open for reading and seeking.
    """

    name: str
    content: BinaryIO


def accept(
    study: StudyReader,
    given: Sequence[Given],
    name: str = "",
    who: str = "",
    architecture: str | None = None,
    worker: KeptWorker | None = None,
) -> Upload:
    """Check untrusted files, and keep them as one learning algorithm of the study.

    Args:
        study: A study with its data built.
        given: One or more checkpoints of one architecture.
        name: Display name; the first file's name if empty.
        who: The user who uploads them.
        architecture: A built-in, or one of the study's spec; None: detect it.
        worker: The worker in which to try out the files; None: a new process.

    Returns:
        The stored upload. Files with the same tensors count once, and are named in `copies`, as
            are those that equal a checkpoint of the study. The
        same checkpoints as before give the upload that already exists.

    Raises:
        UploadError: A file or the name is refused; nothing is stored. The message is one line.
        StoreError: The study has no data yet.
    """
    if not study.has_data:
        raise StoreError(
            f"{study.root} has no data yet to try a model on. Run `dataloupe build {study.root}` "
            "first."
        )
    spec = study.spec.uploads
    chosen = _free_name(study, name) if _text(name) else ""
    expire(study)
    if not given:
        raise UploadError("No file was given. Upload at least one .safetensors file.")
    if len(given) > spec.max_files:
        raise UploadError(
            f"{len(given):,} files were given; one upload may have at most {spec.max_files:,} "
            "(`max_files` under [uploads] in study.toml)."
        )
    largest = spec.max_mib * 2**20
    with incoming(study, [_size(one, largest) for one in given]) as paths:
        arrived = []
        for one, path in zip(given, paths, strict=True):
            arrived.append(_copy(one, path, largest))
            read_header(path, arrived[-1].name, largest)
        named = tuple((path, file.name) for path, file in zip(paths, arrived, strict=True))
        tried = _try(study, Trial(study.root, named, architecture), worker)
        found, kept, copies = tried.architecture, *_without_copies(arrived, paths, tried.digests)
        copies += tuple(
            f"{file.name} holds the same weights as {known}, which this study has already."
            for file, known in zip(arrived, tried.known, strict=True)
            if known
        )
        files = [file for file, _ in kept]
        upload = Upload(
            id=upload_id([file.sha256 for file in files], found.name, found.options),
            name=chosen or _given_name(study, files[0].name),
            who=_text(who),
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            architecture=found.name,
            architecture_options=found.options,
            files=tuple(files),
            preprocessing=preprocessing_of(study.dataset.encoding),
            dataset=study.dataset.fingerprint,
            copies=copies,
        )
        with locked(study):
            for existing in study.uploads.values():
                if _are_the_same(existing, upload):
                    return replace(existing, copies=copies)
            for file, path in kept:
                target = layout.uploaded_weights_file(study.root, file.sha256)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
            write_upload(study.root, upload)
    return upload


def accept_files(
    study: StudyReader,
    files: Sequence[Path],
    name: str = "",
    architecture: str | None = None,
    worker: KeptWorker | None = None,
) -> Upload:
    """Call `accept` on files of this machine. Also raises UploadError if one cannot be read."""
    with contextlib.ExitStack() as opened:
        given = []
        for path in files:
            try:
                given.append(Given(path.name, opened.enter_context(path.open("rb"))))
            except OSError as error:
                raise UploadError(f"{path} cannot be read: {error.strerror}.") from error
        return accept(study, given, name, architecture=architecture, worker=worker)


def rename(study: StudyReader, upload: str, name: str) -> Upload:
    """Change an upload's display name. Raises UploadError if the name is empty or taken."""
    if not _text(name):
        raise UploadError("An upload's name cannot be empty.")
    with locked(study):
        renamed = replace(resolve_upload(study, upload), name=_free_name(study, name))
        write_upload(study.root, renamed)
    return renamed


def delete(study: StudyReader, upload: str) -> None:
    """Remove an upload, all files that only it uses, and everything computed for it."""
    with locked(study):
        _delete(study, resolve_upload(study, upload))


def expire(study: StudyReader, now: datetime | None = None) -> list[Upload]:
    """Remove uploads older than `keep_days`, and leftovers of interrupted ones; return the former.

    Args:
        now: The current time; None: the clock's.
    """
    if layout.uploads_folder(study.root).exists():
        with locked(study):
            remove_left_behind(study)
    now = now or datetime.now(UTC)
    days = study.spec.uploads.keep_days
    if not days:
        return []
    oldest = now - timedelta(days=days)
    old = [u for u in study.uploads.values() if datetime.fromisoformat(u.when) < oldest]
    if old:
        with locked(study):
            for upload in old:
                _delete(study, upload)
    return old


def remove_results(study: StudyReader, upload: str) -> None:
    """Remove everything computed for an upload, given its id."""
    shutil.rmtree(layout.algorithm_folder(study.root, upload), ignore_errors=True)
    for path in layout.comparison_files(study.root):
        try:
            about = store.read_json(path)
        except MissingFile:  # somebody else removed it just now
            continue
        if upload in (about["a"]["algorithm"], about["b"]["algorithm"]):
            for kept in (
                *layout.hypothesis_files(study.root, path.stem),
                *layout.direction_note_files(study.root, path.stem),
            ):
                kept.unlink(missing_ok=True)
            layout.comparison_arrays_file(study.root, path.stem).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def _delete(study: StudyReader, upload: Upload) -> None:
    layout.upload_file(study.root, upload.id).unlink(missing_ok=True)
    remove_results(study, upload.id)
    still = {file.sha256 for other in study.uploads.values() for file in other.files}
    for file in upload.files:
        if file.sha256 not in still:
            layout.uploaded_weights_file(study.root, file.sha256).unlink(missing_ok=True)


def _size(given: Given, max_bytes: int) -> int:
    size = given.content.seek(0, 2)
    check_size(size, shown_name(given.name), max_bytes)
    return size


def _copy(given: Given, path: Path, max_bytes: int) -> UploadedFile:
    """Copy a file, but at most `max_bytes` of it, and compute its SHA-256."""
    name = shown_name(given.name)
    given.content.seek(0)
    digest = hashlib.sha256()
    with path.open("r+b") as file:
        while chunk := given.content.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
            check_size(file.tell(), name, max_bytes)
        file.truncate()
    return UploadedFile(digest.hexdigest(), path.stat().st_size, name)


def _without_copies(
    files: Sequence[UploadedFile], paths: Sequence[Path], digests: Sequence[str]
) -> tuple[list[tuple[UploadedFile, Path]], tuple[str, ...]]:
    """The first file of each set of tensors, and a sentence on each other one.

    Copies would pass for several trainings that agree exactly.
    """
    kept: dict[str, tuple[UploadedFile, Path]] = {}
    copies = []
    for file, path, digest in zip(files, paths, digests, strict=True):
        if digest in kept:
            copies.append(
                f"{file.name} holds the same weights as {kept[digest][0].name}, so the two count "
                "as one checkpoint."
            )
        else:
            kept[digest] = replace(file, tensors=digest), path
    return list(kept.values()), tuple(copies)


def _are_the_same(one: Upload, other: Upload) -> bool:
    """Whether two uploads have the same checkpoints, whatever else their files hold."""

    def checkpoints(upload: Upload) -> object:
        digests = sorted(file.tensors for file in upload.files)
        return digests, upload.architecture, upload.architecture_options

    return one.id == other.id or checkpoints(one) == checkpoints(other)


def _try(study: StudyReader, trial: Trial, worker: KeptWorker | None) -> Tried:
    """Try out the files in a worker. Any failure of the worker becomes a one-line UploadError."""
    own = worker or trial_worker(study)
    try:
        return own.call(try_out, trial, study.spec.uploads.seconds)
    except RuntimeError as error:
        names = ", ".join(name for _, name in trial.files[:3])
        reason = str(error).strip().splitlines()[-1]
        raise UploadError(f"{names} cannot be used: {reason}") from error
    finally:
        if worker is None:
            own.end()


def trial_worker(study: StudyReader) -> KeptWorker:
    """Return a worker for untrusted models with the limits of study.toml. End it after use."""
    memory = study.spec.uploads.memory_mib * 2**20
    return KeptWorker(threads=1, memory_bytes=memory, idle_seconds=60, waiting_seconds=60)


def _free_name(study: StudyReader, name: str) -> str:
    """A display name. Raises UploadError if it is one of an algorithm, or looks like an id."""
    name = _text(name)
    if reason := _taken(study, name):
        raise UploadError(f"An upload cannot be named {name!r}: {reason}.")
    return name


def _given_name(study: StudyReader, file: str) -> str:
    """The display name after a file, marked if it is taken."""
    return f"{file} (uploaded)" if _taken(study, file) else file


def _taken(study: StudyReader, name: str) -> str:
    """Why a name could be mistaken for an algorithm; empty if it cannot."""
    alike = [one for one in study.spec.algorithms if one.casefold() == name.casefold()]
    if alike:
        return f"the study's algorithm {alike[0]!r} is called so"
    return "ids of uploads look so" if is_upload_id(name) else ""


def _text(text: str) -> str:
    printable = "".join(letter for letter in text if letter.isprintable()).strip()
    return printable[:_LONGEST_NAME]
