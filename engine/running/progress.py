"""Progress reports of long work."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[int, int, str], None]
"""Called with (done, total, what is being done)."""
