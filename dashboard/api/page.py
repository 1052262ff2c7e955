"""The page at `/api`: every view with its parameters, for people. Static, without any script."""

from __future__ import annotations

import functools
from html import escape
from pathlib import Path
from urllib.parse import quote

from dashboard.api.table import PICTURE, VIEWS, Parameter, View

_HERE = Path(__file__).parent


@functools.cache
def page() -> str:
    """The page as HTML."""
    content = (_HERE / "page.html").read_text(encoding="utf-8")
    sections = "\n".join(map(_section, VIEWS)) + _table(
        "picture", "Picture", _PICTURE, PICTURE, "?split=test&amp;row=0"
    )
    links = "".join(
        f'<li><a href="#{name}">{escape(title)}</a></li>'
        for name, title in [*((one.name, one.name) for one in VIEWS), ("picture", "picture")]
    )
    return content.replace("LINKS", links).replace("VIEWS", sections)


_PICTURE = "The thumbnail of a picture as PNG, or the text of a text example."


def _section(view: View) -> str:
    tried = "&amp;".join(
        f"{one.name}={quote(one.example)}"
        for one in view.parameters
        if one.example and (one.required or one.name in ("k", "remove"))
    )
    more = (
        f" Long list: <code>{view.long}</code>, streamed as NDJSON or with <code>page=all</code>."
        if view.long
        else ""
    )
    words = f"{escape(view.what)}{more}"
    return _table(view.name, view.title, words, view.parameters, f"?{tried}" if tried else "")


def _table(name: str, title: str, words: str, parameters: tuple[Parameter, ...], tried: str) -> str:
    rows = "".join(
        f"<tr><th scope=row><code>{escape(one.name)}</code>"
        f"{' <b>required</b>' if one.required else ''}</th>"
        f"<td>{escape(one.what)}{_options(one)}</td></tr>"
        for one in parameters
    )
    listed = (
        f"<table><caption>Parameters of {escape(name)}</caption>{rows}</table>"
        if rows
        else ("<p>It takes no parameters.</p>")
    )
    address = f"api/{name}{tried}"
    return (
        f'<section id="{name}"><h2><code>GET /api/{escape(name)}</code></h2><p>{words}</p>'
        f'<p>Try <a href="{address}"><code>/{address}</code></a></p>{listed}</section>'
    )


def _options(one: Parameter) -> str:
    if not one.options:
        return ""
    return " One of " + ", ".join(f"<code>{escape(value)}</code>" for value in one.options) + "."
