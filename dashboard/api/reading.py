"""Answers of views, and errors as one line. The routes and the MCP server both read here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dashboard.api.answer import Answer
from dashboard.api.query import Query, check_names
from dashboard.api.table import PICTURE, VIEWS, View, known_names
from dashboard.api.views.picture import Shown, shown
from engine.study.reader import StudyReader

BY_NAME = {view.name: view for view in VIEWS}


def answer_of(root: Path, view: View, given: Mapping[str, str]) -> Answer:
    """The answer of a view.

    Args:
        given: The parameters of its address.

    Raises:
        DataloupeError: The study cannot be read, a parameter is not valid, or there is no such
            example, algorithm or method (`dashboard.api.query.status_of`).
    """
    check_names(given, known_names(view))
    study = StudyReader.open(root)
    return view.answer(Query(study, given))


def picture_of(root: Path, given: Mapping[str, str]) -> Shown:
    """The picture or text of an example. Raises as `answer_of`."""
    check_names(given, [one.name for one in PICTURE])
    return shown(Query(StudyReader.open(root), given))
