"""The attribution methods whose scores a study has, and how good each was measured to be."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from engine import store
from engine.attribution.evaluation.quality import Quality
from engine.store import layout
from engine.store.layout import TRAK
from engine.store.records import Import
from engine.study.reader import StudyReader


def scored_methods(study: StudyReader, algorithm: str) -> list[str]:
    """Methods whose scores are there, ranked or not; TRAK first."""
    folder = layout.algorithm_folder(study.root, algorithm) / "methods"
    others = sorted(path.parent.name for path in folder.glob("*/method.json"))
    return [*([TRAK] if layout.weighting_file(study.root, algorithm).exists() else []), *others]


def imported_methods(study: StudyReader, algorithm: str) -> dict[str, Import]:
    """Methods whose scores were made elsewhere, and where they came from."""
    found = {}
    for method in scored_methods(study, algorithm):
        if method != TRAK:
            about = store.read_json(layout.method_file(study.root, algorithm, method))
            if "import" in about:
                found[method] = Import(**about["import"])
    return found


def ranked_methods(study: StudyReader, algorithm: str) -> list[str]:
    """Methods whose scores can be shown, the default first."""
    ranked = (layout.algorithm_folder(study.root, algorithm) / "search").glob("*/search.json")
    names = [path.parent.name for path in ranked]
    whole = [n for n in names if n == TRAK or layout.method_file(study.root, algorithm, n).exists()]
    quality = read_quality(study, algorithm)
    first = TRAK if quality is None else quality.preferred
    return sorted(whole, key=lambda name: (name != first, name != TRAK, name))


def has_scores(study: StudyReader, algorithm: str, method: str | None = None) -> bool:
    """Whether Explain can be shown: by this method, or by any."""
    methods = ranked_methods(study, algorithm)
    return bool(methods) if method is None else method in methods


def method_title(study: StudyReader, algorithm: str, method: str) -> str:
    """What to call a method, ranked or not. Raises StoreError where there are no scores."""
    if method == TRAK:
        return "TRAK"
    title: str = store.read_json(layout.method_file(study.root, algorithm, method))["badge"][
        "method"
    ]
    return title


def read_quality(study: StudyReader, algorithm: str) -> Quality | None:
    """How far each method can be trusted; None until it is measured on subset runs.

    Shared between callers: never change it.
    """
    path = layout.quality_file(study.root, algorithm)
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return _read_quality(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _read_quality(path: Path, changed: int, size: int) -> Quality:
    """Parsed once for each state of the file, as every page asks for it several times."""
    return Quality.from_dict(store.read_json(path))
