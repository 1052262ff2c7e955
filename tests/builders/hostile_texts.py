"""Texts that strangers send: markup, control characters, every direction and length."""

from __future__ import annotations

HOSTILE_TEXTS = {
    "html": "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'> & <b>",
    "closing tags": "</blockquote></figure></style>",
    "quotes": "\" onmouseover='x' `",
    "markdown": "# a **b** [c](javascript:d) $e$ :red[f]",
    "controls": "a\x00b\x1b[31mc\x7fd\x85e\u2028f",
    "directions": "a \u202egnp.exe\u2066 b \u2069",
    "Arabic": "أحببت هذا الفيلم (2024) John",
    "Chinese": "这部电影非常精彩",
    "Thai": "ภาพยนตร์เรื่องนี้สนุกมาก",
    "emoji": "👩🏽\u200d💻 ❤\ufe0f 🇩🇪",
    "stacked marks": "x" + "\u0301" * 500,
    "one long word": "x" * 5_000,
    "long": "so it goes on " * 10_000,
    "empty": "",
    "space": " \n\t ",
}
