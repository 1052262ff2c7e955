"""Sheets of any rows, begun as soon as a page is about to show them.

The browser asks for a sheet only once it has built the page around it. By then it is there.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

from engine.data.thumbnails import gathered_sheet
from engine.store import layout
from engine.store.layout import Split

_pool = ThreadPoolExecutor(2, thread_name_prefix="sheets")


@lru_cache(maxsize=256)
def gathered(
    root: Path, fingerprint: str, split: Split, rows: tuple[int, ...], cell: int
) -> Future[bytes]:
    """The sheet of these rows, being made or made; kept while it is among the last ones.

    Args:
        fingerprint: Of the study's data: other data, another sheet.
        cell: Side of a thumbnail, pixels.
    """
    return _pool.submit(gathered_sheet, partial(layout.sprite_file, root, split), rows, cell)
