"""Names of classes, files and uploads that would do harm where they are not escaped."""

from __future__ import annotations

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "🦊 fox **bold** :red[x] `code` $x$",
    "a" * 500,
    "\"quoted\" & 'both' [link](http://x)",
    "=cmd()",
)
