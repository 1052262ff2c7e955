"""The page at `/api`: every view with its parameters, for people. Static, without any script."""

from __future__ import annotations

import functools
import re
from html import escape
from pathlib import Path
from urllib.parse import quote

from dashboard.api.table import PICTURE, VIEWS, Parameter, View, title_of

_HERE = Path(__file__).parent


_PICTURE = "The thumbnail of a picture as PNG, or the text of a text example."


@functools.cache
def page() -> str:
    """The page as HTML."""
    content = (_HERE / "page.html").read_text(encoding="utf-8")
    sections = [*map(_view, VIEWS), _section("picture", _PICTURE, PICTURE, "split=test&row=0")]
    names = [*(one.name for one in VIEWS), "picture"]
    links = "".join(f'<li><a href="#{name}">{name}</a></li>' for name in names)
    return content.replace("LINKS", links).replace("VIEWS", "\n".join(sections))


def _view(view: View) -> str:
    tried = "&".join(
        f"{one.name}={quote(one.example)}"
        for one in view.parameters
        if one.example and (one.required or one.name in ("k", "remove"))
    )
    words = f'{_words(view.what)} <a href="{view.page}">Its page: {escape(title_of(view))}</a>.'
    if view.long:
        words += (
            f" Its list, <code>{view.long}</code>, is streamed as NDJSON or with "
            "<code>page=all</code>."
        )
    return _section(view.name, words, view.parameters, tried)


def _section(name: str, words: str, parameters: tuple[Parameter, ...], tried: str) -> str:
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(one.name)}</code>'
        f"{' <b>required</b>' if one.required else ''}</th>"
        f"<td>{_words(one.what)}{_options(one)}</td></tr>"
        for one in parameters
    )
    listed = "<p>It takes no parameters.</p>"
    if rows:
        listed = f"<table><caption>Parameters of {name}</caption>{rows}</table>"
    address = escape(f"api/{name}?{tried}" if tried else f"api/{name}")
    return (
        f'<section id="{name}"><h2><code>GET /api/{name}</code></h2><p>{words}</p>'
        f'<p>Try <a href="{address}"><code>/{address}</code></a></p>{listed}</section>'
    )


def _words(text: str) -> str:
    """HTML of a sentence in which `names` stand between backticks."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _options(one: Parameter) -> str:
    if not one.options:
        return ""
    return " One of " + ", ".join(f"<code>{escape(value)}</code>" for value in one.options) + "."
