"""The picture of an example as PNG, or its text."""

from __future__ import annotations

import io
from dataclasses import dataclass

from dashboard.api.query import Query
from engine.store.errors import StoreError, UnknownName
from engine.store.layout import SPLITS
from engine.study.capabilities import has
from engine.study.examples import TEXT, read_texts_of
from engine.study.names import resolve_row
from engine.study.thumbnails import read_thumbnail

PNG, PLAIN = "image/png", "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Shown:
    """What an example looks like: a PNG, or a text in UTF-8."""

    content: bytes
    media_type: str


def shown(query: Query) -> Shown:
    """The picture or the text of an example.

    Raises:
        UnknownName: There is no such example. StoreError: Its picture is not there.
    """
    study = query.study
    if not study.has_data:
        raise StoreError(
            f"{study.root} has no data yet. `dataloupe build {study.root}` reads them."
        )
    asked = query.one_of("split", SPLITS, "test")
    split = next(one for one in SPLITS if one == asked)
    if "row" in query.given:
        text = query.given["row"]
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise UnknownName(f"row must be a number from 0, not “{text[:60]}”.")
        row = resolve_row(study, split, int(text))
    else:
        row = resolve_row(study, split, query.needed("id", "the id of an example, or `row`"))
    if not has(study, "pictures"):
        (words,) = read_texts_of(study, split, TEXT, [row])
        return Shown((words or "").encode(), PLAIN)
    try:
        picture = read_thumbnail(study, split, row)
    except OSError as error:
        raise StoreError(
            f"The pictures of {study.root} are missing or broken. `dataloupe doctor {study.root}` "
            "names the files."
        ) from error
    file = io.BytesIO()
    picture.save(file, "PNG")
    return Shown(file.getvalue(), PNG)
