"""The frame of all pages: Streamlit's own page with our script, and our style sheets as one.

A style sheet that a page wrote would be sent, checked and parsed anew with every click.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from base64 import b64encode
from pathlib import Path

import streamlit as st

from dashboard.location import STATE

HERE = Path(__file__).parent
SHEETS = (
    "variables",
    "frame",
    "page",
    "trajectories",
    "figures",
    "charts",
    "verdicts",
    "texts",
    "curation",
    "findings",
    "palette",
)
"""Files of `style/` in the order of the cascade."""
_SHORTCUT_ICON = re.compile(r'<link rel="shortcut icon"[^>]*>')


@functools.cache
def page() -> str:
    """Streamlit's own page with our icon. Our script comes before its own, our style after its own.

    Streamlit would set its "shortcut icon" again with every click, and the browser draw it.
    """
    found = (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    icon = f'<link rel="icon" href="data:image/svg+xml;base64,{_base64("icon.svg")}" />'
    found = _SHORTCUT_ICON.sub(icon, found)
    script = f'<script src="{base()}/dataloupe/frame.js"></script>'
    version = hashlib.sha256(style().encode()).hexdigest()[:16]
    sheet = f'<link rel="stylesheet" href="{base()}/dataloupe/style.css?{version}">'
    return found.replace("<head>", f"<head>{script}", 1).replace("<body>", f"<body>{sheet}", 1)


@functools.cache
def script() -> str:
    """Our script, which runs before Streamlit's."""
    files = HERE / "frame.js", HERE / "focus.js", HERE / "parts" / "palette" / "palette.js"
    content = "".join(file.read_text(encoding="utf-8") for file in files)
    content = content.replace('"BASE/"', f'"{base()}/"')
    return content.replace('"BASE"', f'"{base()}"').replace('"STATE"', json.dumps(STATE))


@functools.cache
def style() -> str:
    """Our style sheets, and the logo that the header links to Overview."""
    sheets = [(HERE / "style" / f"{name}.css").read_text(encoding="utf-8") for name in SHEETS]
    logo = f"data:image/svg+xml;base64,{_base64('logo.svg')}"
    sheets.append(f'.dl-logo {{ background-image: url("{logo}"); }}\n')
    return "\n".join(sheets)


def _base64(name: str) -> str:
    return b64encode((HERE / name).read_bytes()).decode()


def base() -> str:
    """The path below which the server answers, such as `/study`; usually empty."""
    path = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{path}" if path else ""
