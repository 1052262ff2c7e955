"""Create a study: a folder with a study.toml."""

from __future__ import annotations

from pathlib import Path

from engine import store
from engine.store.errors import SpecError
from engine.study.reader import StudyReader


def create_study(root: str | Path, spec_text: str) -> StudyReader:
    """Create a folder with this study.toml. An existing study is never overwritten.

    Raises:
        SpecError: A study already exists there, or the text is not a valid study.toml.
    """
    target = Path(root) / "study.toml"
    if target.exists():
        raise SpecError(f"{target} already exists. Edit it, or choose a different folder.")
    with store.atomic(target) as temporary:
        temporary.write_text(spec_text, encoding="utf-8")
    try:
        return StudyReader.open(root)
    except SpecError:
        target.unlink()
        raise
