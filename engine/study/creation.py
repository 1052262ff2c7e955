"""A new study: a folder with a study.toml."""

from __future__ import annotations

from pathlib import Path

from engine import store
from engine.store.errors import SpecError
from engine.study.reader import StudyReader


def create_study(root: str | Path, spec_text: str) -> StudyReader:
    """Make a folder with this study.toml. An existing study is never overwritten.

    Raises:
        SpecError: There is a study already, or the text is not a valid study.toml.
    """
    target = Path(root) / "study.toml"
    if target.exists():
        raise SpecError(f"{target} exists already. Edit it, or choose another folder.")
    with store.atomic(target) as temporary:
        temporary.write_text(spec_text, encoding="utf-8")
    try:
        return StudyReader.open(root)
    except SpecError:
        target.unlink()
        raise
