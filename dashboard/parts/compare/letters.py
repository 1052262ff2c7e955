"""The letters A and B of the two compared algorithms, in their own colors."""

from __future__ import annotations

from html import escape

from dashboard.names import short


def letter(key: str) -> str:
    """HTML of the letter of one side.

    Args:
        key: `a` or `b`.
    """
    return f'<span class="dl-letter" data-kind="{key}">{key.upper()}</span>'


def lettered(key: str, name: str) -> str:
    """HTML of an algorithm's name behind its letter."""
    return f"{letter(key)}{escape(short(name))}"
