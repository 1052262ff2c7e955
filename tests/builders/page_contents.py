"""What a page of the dashboard shows, read from its AppTest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from streamlit.testing.v1 import AppTest


def words(app: AppTest) -> str:
    """All of our own HTML on the page, without the style sheet."""
    return "\n".join(part.value for part in app.html if not part.value.startswith("<style"))


def cards(app: AppTest, group: int = 0, gallery: int = 0) -> list[dict[str, Any]]:
    """What a gallery of the page shows."""
    galleries = [json.loads(part.proto.json or "{}") for part in app.get("bidi_component")]
    found = [gallery for gallery in galleries if "groups" in gallery]
    items: list[dict[str, Any]] = found[gallery]["groups"][group]["items"]
    return items


def group_words(app: AppTest) -> list[str]:
    galleries = [json.loads(part.proto.json or "{}") for part in app.get("bidi_component")]
    gallery = next(gallery for gallery in galleries if "groups" in gallery)
    return [group["words"] for group in gallery["groups"]]


def component_of(app: AppTest, name: str) -> list[dict[str, Any]]:
    """The data of the page's components that have this entry."""
    found = [json.loads(part.proto.json or "{}") for part in app.get("bidi_component")]
    return [data for data in found if name in data]


def component(app: AppTest, name: str) -> dict[str, Any]:
    """The data of the page's component that has this entry."""
    (data,) = component_of(app, name)
    return data


def everything(app: AppTest) -> str:
    """All text that a page shows, without markup: its HTML, galleries, charts and controls."""
    parts = [words(app)]
    for element in app.main:
        proto = getattr(element, "proto", None)
        if getattr(element, "type", "") == "bidi_component":
            found = json.loads(proto.json or "{}") if proto is not None else {}
            parts.extend(_texts(found))
        if isinstance(figure := getattr(proto, "spec", None), str) and figure.startswith("{"):
            parts.extend(_texts(json.loads(figure)))
        for name in ("label", "placeholder", "help", "body"):
            if isinstance(text := getattr(proto, name, None), str):
                parts.append(text)
        parts.extend(str(option) for option in getattr(proto, "options", ()))
    text = "\n".join(parts)
    return re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL))


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for part in data.values() if isinstance(data, dict) else data:
            yield from _texts(part)
