"""The study.toml templates in assets/specs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from engine.data.assets import asset
from engine.store.errors import SpecError

EXAMPLES = {
    "clothes": "fashion-mnist",
    "captions": "captions",
    "facts": "facts",
    "diffusion": "diffusion",
}
"""What `dataloupe demo` can show → the template whose data come with Dataloupe; the first is the
default."""
MAKING = ("diffusion",)
"""Templates whose models make the test split that the demo shows."""


def template_names() -> list[str]:
    """Names of the shipped specs."""
    return sorted(path.stem for path in asset("specs").glob("*.toml"))


def case_names() -> list[str]:
    """Names of the case studies, whose specs are `case-NAME`."""
    return [n.removeprefix("case-") for n in template_names() if n.startswith("case-")]


def spec_from_template(name: str, source: str | None = None) -> str:
    """Return the text of a template, with `source` in place of its own if given.

    A path is made absolute, so that the study's folder can be anywhere.

    Raises:
        SpecError: There is no such template, or it needs a source and none is given.
    """
    if name not in template_names():
        raise SpecError(f"There is no template {name!r}; there are {', '.join(template_names())}.")
    text = (asset("specs") / f"{name}.toml").read_text(encoding="utf-8")
    if source is not None:
        path = Path(source).expanduser()
        quoted = json.dumps(str(path.resolve()) if path.exists() else source, ensure_ascii=False)
        return re.sub(r'(?m)^source = ".*"', lambda _: f"source = {quoted}", text, count=1)
    if re.search(r'(?m)^source = ""', text):
        raise SpecError(f"The template {name!r} needs --data: a folder, a file or a hub name.")
    return text
