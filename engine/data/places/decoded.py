"""Pictures by reference as an array: they are decoded when they are asked for, or ahead of that.

pictures.ahead(rows)    # threads begin
pictures[rows]          # uint8 [rows, channels, height, width], as `engine.data.fitting` gives
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.data.fitting import Fit, decode, pixels_of, pool
from engine.data.places.place import from_folder, place_of, read_bytes
from engine.data.places.survey import digest_of
from engine.data.thumbnails import thumbnail
from engine.store.errors import DataError

_AT_ONCE = 8
"""Pictures that a thread decodes before it takes others."""
_MOST_AHEAD = 128 * 2**20
"""Bytes of pictures that are decoded before they are asked for."""
FEWEST_AHEAD = 256
"""Pictures to name ahead: small batches need several."""

References = Callable[[int], tuple[str, bytes]]
"""Row → (place below the source's folder, digest)."""


class DecodedPictures:
    """The pictures of a split, or of a range of its rows."""

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        rows: range,
        references: References,
        folder: Path | None,
        fit: Fit,
        study: Path,
    ) -> None:
        """Name pictures; nothing is read.

        Args:
            rows: Of the split.
            references: Finds a row's picture.
            folder: The source's.
            study: Its folder, for errors.
        """
        self._rows, self._references, self._folder = rows, references, folder
        self._fit, self._study = fit, study
        self.shape = (len(rows), *fit.shape)
        self.nbytes = int(np.prod(self.shape))
        self._most = max(1, _MOST_AHEAD // int(np.prod(fit.shape)))
        self._begun: OrderedDict[int, tuple[Future[np.ndarray], int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, int | np.integer):
            pixels: np.ndarray = self[np.array([rows])][0]
            return pixels
        numbers = np.arange(len(self))[rows]
        found = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for target, (future, place) in zip(found, self._taken(numbers.tolist()), strict=True):
            target[:] = future.result()[place]
        return found

    def ahead(self, rows: np.ndarray) -> None:
        """Begin to decode rows that are asked for soon; those that do not fit are left out."""
        with self._lock:
            new = [
                row for row in dict.fromkeys(rows[: self._most].tolist()) if row not in self._begun
            ]
            self._begun |= self._begin(new)
            while len(self._begun) > self._most:  # named, and never asked for
                self._begun.popitem(last=False)

    def thumbnail(self, row: int) -> Image.Image:
        """A picture, reduced to its cell of a sprite sheet."""
        return thumbnail(self._read(row), self._fit.cell)

    def digests(self) -> Iterable[bytes]:
        """Digests of the encoded pictures."""
        return (self._references(row)[1] for row in self._rows)

    def _taken(self, rows: list[int]) -> list[tuple[Future[np.ndarray], int]]:
        """What decodes each of these rows; it is no longer kept for later."""
        with self._lock:
            ready = {row: self._begun.pop(row) for row in set(rows) if row in self._begun}
            missing = [row for row in dict.fromkeys(rows) if row not in ready]
            ready |= self._begin(missing)
        return [ready[row] for row in rows]

    def _begin(self, rows: list[int]) -> Mapping[int, tuple[Future[np.ndarray], int]]:
        found: dict[int, tuple[Future[np.ndarray], int]] = {}
        for first in range(0, len(rows), _AT_ONCE):
            some = rows[first : first + _AT_ONCE]
            future = pool().submit(self._decode, some)
            found |= {row: (future, place) for place, row in enumerate(some)}
        return found

    def _decode(self, rows: list[int]) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for row, target in zip(rows, found, strict=True):
            target[:] = pixels_of(self._read(row), self._where(row), self._fit)
        return found

    def _read(self, row: int) -> Image.Image:
        """Decode a picture whose bytes are those of the survey.

        Raises:
            DataError: They are not, or not there.
        """
        kept, digest = self._references(self._rows[row])
        text = from_folder(kept, self._folder)
        place = place_of(text)
        remedy = (
            f"Restore it, or run `dataloupe build {self._study} --rebuild data`, which reads all "
            "data again."
        )
        try:
            content = read_bytes(text)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(f"The picture {place} is no longer there. {remedy}") from error
        except OSError as error:
            raise DataError(f"The picture {place} cannot be read: {error.strerror}.") from error
        except DataError as error:
            raise DataError(f"{str(error).rstrip('.')}. {remedy}") from error
        if digest_of(content) != digest:
            raise DataError(
                f"The picture {place} has changed since {self._study} read it, and old and new "
                f"data are never mixed. {remedy}"
            )
        row_content: dict[str, Any] = {"bytes": content, "path": str(place)}
        return decode(row_content, self._where(row), self._fit)

    def _where(self, row: int) -> str:
        return f"row {self._rows[row]}"


def read_ahead(arrays: Mapping[str, Any], rows: np.ndarray) -> None:
    """Begin to decode the pictures of these rows, where arrays hold pictures by reference."""
    for array in arrays.values():
        if isinstance(array, DecodedPictures):
            array.ahead(rows)
