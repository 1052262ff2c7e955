"""Files that browsers send: on disk, only where a page waits for one, and within a total.

Streamlit asks this manager for an address when somebody chooses a file. It gives one only if a file
uploader is on that session's page. The route (`dashboard.server.upload_route`) takes a file only at
an address that was given. Files lie in a temporary folder that is removed with the session; pages
read them with `opened`.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.stats import CacheStat
from streamlit.runtime.uploaded_file_manager import (
    UploadedFile,
    UploadedFileManager,
    UploadedFileRec,
    UploadFileUrlInfo,
)

from engine.store.errors import DataloupeError
from engine.store.scratch_folders import ALIVE, make_scratch_folder, remove_left_behind
from engine.store.walk import paths_in, total_size

MOST_FILES = 100
"""Addresses and files of a session at a time."""
_PREFIX = "dataloupe-uploads-"


class OnDisk(bytes):
    """A file's bytes for Streamlit: as long as the file, but not in memory."""

    path: Path
    size: int

    def __new__(cls, path: Path, size: int) -> OnDisk:
        """Stand for the file at `path`."""
        found = super().__new__(cls)
        found.path, found.size = path, size
        return found

    def __len__(self) -> int:
        """Bytes of the file."""
        return self.size


@dataclass
class _Place:
    """An address that was given to a session.

    Attributes:
        most: Largest size of the file.
        used: Bytes that count against the totals: of the file, or announced and still arriving.
        record: The file; None until it arrived whole.
    """

    most: int
    used: int = 0
    record: UploadedFileRec | None = None


class Refused(DataloupeError):
    """A file that is not taken.

    Attributes:
        status: Of the HTTP response.
    """

    def __init__(self, status: int, words: str) -> None:
        """Set the status and the one line of the response."""
        super().__init__(words)
        self.status = status


class UploadedFiles(UploadedFileManager):
    """The files of all sessions. Used from the event loop and from the threads of the pages."""

    def __init__(
        self,
        endpoint: str,
        waiting: Callable[[str], int],
        session_bytes: int,
        server_bytes: int,
    ) -> None:
        """Create the folder of this server, and remove those of servers that are gone.

        Args:
            endpoint: Path of the route that takes files.
            waiting: Session id → largest file, in bytes, that an uploader on its page takes; 0
                without an uploader.
            session_bytes: Most bytes of a session's files together.
            server_bytes: Most bytes of all files together.
        """
        self.endpoint = endpoint
        self._waiting = waiting
        self._session_bytes, self._server_bytes = session_bytes, server_bytes
        self._lock = threading.RLock()
        self._places: dict[str, dict[str, _Place]] = {}
        remove_left_behind(_temporary(), _PREFIX)
        self._folder, self._alive = make_scratch_folder(_temporary(), _PREFIX)
        atexit.register(self.close)

    # --- what Streamlit asks for --------------------------------------------------------------

    def get_upload_urls(
        self, session_id: str, file_names: Sequence[str]
    ) -> list[UploadFileUrlInfo]:
        """Addresses for files that a session wants to send; none if its page takes no file."""
        most = self._waiting(session_id)
        if not most:
            return []
        found = []
        with self._lock:
            places = self._places.setdefault(session_id, {})
            for _ in file_names:
                if len(places) >= MOST_FILES:
                    break
                file_id = str(uuid.uuid4())
                places[file_id] = _Place(most)
                url = f"{self.endpoint}/{session_id}/{file_id}"
                found.append(UploadFileUrlInfo(file_id, url, url))
        return found

    def get_files(self, session_id: str, file_ids: Sequence[str]) -> list[UploadedFileRec]:
        """Those of the files that arrived."""
        with self._lock:
            places = self._places.get(session_id, {})
            found = [places[one].record for one in file_ids if one in places]
        return [record for record in found if record is not None]

    def remove_file(self, session_id: str, file_id: str) -> None:
        """Remove a file, and its address."""
        with self._lock:
            place = self._places.get(session_id, {}).pop(file_id, None)
        if place is not None:
            self.path_of(session_id, file_id).unlink(missing_ok=True)

    def remove_session_files(self, session_id: str) -> None:
        """Remove all files of a session that has ended."""
        with self._lock:
            ids = list(self._places.pop(session_id, {}))
        for file_id in ids:
            self.path_of(session_id, file_id).unlink(missing_ok=True)

    @property
    def stats_families(self) -> Sequence[str]:
        """None: the files are not in memory."""
        return ()

    def get_stats(self, family_names: Sequence[str] | None = None) -> dict[str, list[CacheStat]]:
        """Nothing: the files are not in memory."""
        return {}

    # --- what the route asks for --------------------------------------------------------------

    @contextlib.contextmanager
    def receiving(self, session_id: str, file_id: str, announced: int) -> Iterator[Arriving]:
        """Take a file at an address that was given; remove it again unless it is kept.

        Args:
            announced: Its size, as far as it is known.

        Raises:
            Refused: There is no such address or no uploader any more, or the file is too large.
        """
        with self._lock:
            place = self._places.get(session_id, {}).get(file_id)
            if place is None or not self._waiting(session_id):
                raise Refused(403, "No page waits for this file.")
            _check_size(place, announced)
            if place.used or place.record is not None:
                raise Refused(409, "This file was sent already.")
            self._grow(session_id, place, max(announced, 1))
        path = self.path_of(session_id, file_id)
        try:
            with path.open("wb") as file:
                arriving = Arriving(self, session_id, place, file)
                yield arriving
            if arriving.kept is not None:
                name, type_ = arriving.kept
                with self._lock:
                    place.used = max(1, arriving.size)
                    data = OnDisk(path, arriving.size)
                    place.record = UploadedFileRec(file_id, name, type_, data)
        finally:
            with self._lock:
                gone = self._places.get(session_id, {}).get(file_id) is not place
                if place.record is None:
                    place.used = 0
            if place.record is None or gone:
                path.unlink(missing_ok=True)

    def _grow(self, session_id: str, place: _Place, size: int) -> None:
        """Count a file as this large. Raises Refused if that is too large. Call with the lock."""
        more = size - place.used
        if session_id not in self._places:
            raise Refused(403, "The page that waited for this file is closed.")
        _check_size(place, size)
        if self._sum([session_id]) + more > self._session_bytes:
            raise Refused(413, "Your files are too large together. Remove some first.")
        if self._sum(list(self._places)) + more > self._server_bytes:
            raise Refused(507, "The server has no space for more files. Try again later.")
        if more > 0 and shutil.disk_usage(self._folder).free < more + 2**26:
            raise Refused(507, "The server's disk is full.")
        place.used = size

    def _sum(self, sessions: Sequence[str]) -> int:
        return sum(place.used for one in sessions for place in self._places[one].values())

    def kept_bytes(self) -> int:
        """Bytes of all files, whole or arriving."""
        return total_size(path for path in paths_in(self._folder) if path.name != ALIVE)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._alive.close()

    def path_of(self, session_id: str, file_id: str) -> Path:
        """Where a file lies."""
        # Both are this server's own; only letters that such ids have reach a path.
        return self._folder / re.sub(r"[^0-9a-zA-Z-]", "_", f"{session_id}-{file_id}")


def _check_size(place: _Place, size: int) -> None:
    if size > place.most:
        raise Refused(413, f"The file is larger than {place.most / 2**20:,.0f} MiB.")


class Arriving:
    """A file while it arrives."""

    def __init__(
        self, files: UploadedFiles, session_id: str, place: _Place, file: BinaryIO
    ) -> None:
        """Write to `file`, which counts as `place` of a session."""
        self._files, self._session_id, self._place, self._file = files, session_id, place, file
        self.size = 0
        self.kept: tuple[str, str] | None = None

    def write(self, content: bytes) -> None:
        """Add a part. Raises Refused if the file gets too large."""
        self.size += len(content)
        if self.size > self._place.used:
            with self._files._lock:
                self._files._grow(self._session_id, self._place, self.size)
        self._file.write(content)

    def keep(self, name: str, type_: str) -> None:
        """Keep the file: it arrived whole."""
        self.kept = name, type_


def _temporary() -> Path:
    """A folder on a disk: /tmp is in memory on many machines."""
    return Path(
        os.environ.get("TMPDIR")
        or ("/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir())
    )


# --- for pages ----------------------------------------------------------------------------------


def opened(file: UploadedFile) -> BinaryIO:
    """A file of an uploader, open for reading; the caller closes it."""
    context: Any = get_script_run_ctx()
    files = context and context.uploaded_file_mgr
    if isinstance(files, UploadedFiles):
        try:
            return files.path_of(context.session_id, file.file_id).open("rb")
        except OSError as error:
            raise DataloupeError("The file is gone. Choose it again.") from error
    return io.BytesIO(file.getvalue())


def content_of(file: UploadedFile) -> bytes:
    """All bytes of a file of an uploader."""
    with opened(file) as found:
        return found.read()
