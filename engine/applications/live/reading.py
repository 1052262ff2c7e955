"""Read the example of a query. What people send is not trusted."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from engine.applications.live.queries import Example, Query
from engine.build.tasks import task_of
from engine.data.picture_background import background_of
from engine.data.picture_budget import check_budget
from engine.store import layout
from engine.store.errors import DataError
from engine.store.rows import evenly_spread
from engine.store.spec import validate_options
from engine.study.capabilities import has
from engine.study.examples import read_stacked_arrays
from engine.study.reader import StudyReader
from engine.tasks import Encoded

LONGEST_TEXT = 20_000
"""Characters of a text."""
MOST_LOOKED_AT = 100
"""Training pictures that tell the background."""

Result = TypeVar("Result")


def read_example(query: Query) -> Example:
    """Decode the example of a query. Raises DataError if it cannot be used or is too large."""
    study, given = StudyReader.open(query.root), query.given
    for content in given.values():
        _check_size(content)
    task = task_of(study)
    absent = [view for view in task.views if view not in given]
    if len(absent) > (0 if task.retrieval is None else 1):
        raise DataError(f"Nothing is given: a {' or a '.join(task.views)} is needed.")
    options = validate_options(task.options, study.spec.task, layout.spec_file(study.root))
    encoding = study.dataset.encoding
    if has(study, "pictures"):
        encoding = encoding | {"background": _background(study.root, study.dataset.fingerprint)}
    accepted = _in_one_line(lambda: task.accept(given, options, encoding))
    encoded = _in_one_line(lambda: task.encode([accepted.row], accepted.options, encoding))
    text = given.get("text")
    return Example(
        thumbnail=_png(encoded),
        text=text if isinstance(text, str) else None,
        notes=accepted.notes,
        arrays=dict(encoded.arrays),
        missing=absent[0] if absent else None,
    )


def _check_size(content: bytes | str) -> None:
    if isinstance(content, str) and len(content) > LONGEST_TEXT:
        raise DataError(
            f"The text has {len(content):,} characters, more than {LONGEST_TEXT:,}. Shorten it."
        )
    if isinstance(content, bytes) and content:
        _in_one_line(lambda: check_budget(content, "example 'yours'"))


@lru_cache(maxsize=8)
def _background(root: Path, fingerprint: str) -> tuple[int, int, int]:
    """What is around things in the training pictures of the data with this fingerprint."""
    study = StudyReader.open(root)
    pictures = read_stacked_arrays(study, "train")["input"]
    return background_of(pictures[evenly_spread(study.dataset.n_train, MOST_LOOKED_AT)])


def warm_up_reading(query: Query) -> None:
    """Import everything that `read_example` needs; the content of the query is ignored."""
    task_of(StudyReader.open(query.root))


def _in_one_line(read: Callable[[], Result]) -> Result:
    """Read something of the example, and name it in errors as its owner would."""
    try:
        return read()
    except DataError as error:
        message = str(error).partition("example 'yours': ")[2] or str(error)
        raise DataError(message[0].upper() + message[1:]) from error


def _png(encoded: Encoded) -> bytes | None:
    if not encoded.thumbnails:
        return None
    buffer = io.BytesIO()
    encoded.thumbnails[0].save(buffer, "PNG")
    return buffer.getvalue()
