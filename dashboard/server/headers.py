"""Headers of every response: what a browser may load, run and embed, and who may embed a page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import streamlit

_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def security_headers(
    frame_ancestors: Sequence[str] = (), form_targets: Sequence[str] = ()
) -> list[tuple[bytes, bytes]]:
    """The headers, as ASGI sends them.

    Args:
        frame_ancestors: Origins of pages that may show a page in a frame; empty: none.
        form_targets: Origins that signing out may lead to.
    """
    headers = {
        "Content-Security-Policy": content_policy(frame_ancestors, form_targets),
        "X-Content-Type-Options": "nosniff",
        # Links of the pages hold ids of examples.
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    }
    if not frame_ancestors:
        headers["X-Frame-Options"] = "DENY"
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


def content_policy(frame_ancestors: Sequence[str], form_targets: Sequence[str]) -> str:
    """What pages may load: only from this server.

    Components bring their scripts as `blob:` URLs. Styles are written into the page by Streamlit
    and Plotly. `unsafe-eval` is not needed.
    """
    rules = {
        "default-src": "'self'",
        "script-src": " ".join(["'self'", "blob:", *_hashes()]),
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "media-src": "'self' data: blob:",
        "connect-src": "'self' blob: data:",
        "worker-src": "'self' blob:",
        "frame-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": " ".join(["'self'", *form_targets]),
        "frame-ancestors": " ".join(frame_ancestors) or "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hashes() -> list[str]:
    """Hashes of the scripts that Streamlit's own page holds."""
    page = Path(streamlit.__file__).parent / "static" / "index.html"
    found = _INLINE.findall(page.read_text(encoding="utf-8"))
    digests = [hashlib.sha256(script.encode()).digest() for script in found]
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
