"""The attribution methods of a study's scores, and their measured quality."""

from __future__ import annotations

import contextlib

from engine import store
from engine.attribution.evaluation.quality import Quality
from engine.store import layout
from engine.store.cache import FileCache, list_names
from engine.store.errors import MissingFile
from engine.store.layout import TRAK
from engine.store.records import Import
from engine.study.reader import StudyReader

_QUALITIES: FileCache[Quality] = FileCache(most=64)


def scored_methods(study: StudyReader, algorithm: str) -> list[str]:
    """Methods with stored scores, ranked or not; TRAK first."""
    folder = layout.methods_folder(study.root, algorithm)
    others = [
        n for n in list_names(folder) if layout.method_file(study.root, algorithm, n).exists()
    ]
    return [*([TRAK] if layout.weighting_file(study.root, algorithm).exists() else []), *others]


def imported_methods(study: StudyReader, algorithm: str) -> dict[str, Import]:
    """Methods whose scores were imported, with their source."""
    found = {}
    for method in scored_methods(study, algorithm):
        if method != TRAK:
            with contextlib.suppress(MissingFile):  # removed just now
                about = store.read_json(layout.method_file(study.root, algorithm, method))
                if "import" in about:
                    found[method] = Import(**about["import"])
    return found


def ranked_methods(study: StudyReader, algorithm: str) -> list[str]:
    """Methods with ranked scores, the default first."""
    folder = layout.searches_folder(study.root, algorithm)
    names = [n for n in list_names(folder) if layout.search_file(study.root, algorithm, n).exists()]
    complete = [
        n for n in names if n == TRAK or layout.method_file(study.root, algorithm, n).exists()
    ]
    quality = read_quality(study, algorithm)
    first = TRAK if quality is None else quality.preferred
    return sorted(complete, key=lambda name: (name != first, name != TRAK, name))


def has_scores(study: StudyReader, algorithm: str, method: str | None = None) -> bool:
    """Whether there are ranked scores by this method; None: by any method."""
    methods = ranked_methods(study, algorithm)
    return bool(methods) if method is None else method in methods


def method_title(study: StudyReader, algorithm: str, method: str) -> str:
    """A method's display name. Raises StoreError if there are no scores."""
    if method == TRAK:
        return "TRAK"
    title: str = store.read_json(layout.method_file(study.root, algorithm, method))["badge"][
        "method"
    ]
    return title


NO_BETTER = "no better than chance"


def method_choice(study: StudyReader, algorithm: str, method: str) -> str:
    """A method's name in a list to choose from, marked if its scores do not beat chance."""
    title = method_title(study, algorithm, method)
    quality = read_quality(study, algorithm)
    measured = None if quality is None else quality.methods.get(method)
    return title if measured is None or measured.beats_chance else f"{title} · {NO_BETTER}"


def read_quality(study: StudyReader, algorithm: str) -> Quality | None:
    """LDS and calibration of each method; None until they are measured on subset runs.

    Shared between callers: never change it.
    """
    path = layout.quality_file(study.root, algorithm)
    try:
        return _QUALITIES.get(path, lambda: Quality.from_dict(store.read_json(path)))
    except MissingFile:
        return None
