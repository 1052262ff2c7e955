"""What Dataloupe ships beside its code: the embedded dataset and the specs of `dataloupe init`."""

from __future__ import annotations

from pathlib import Path

from engine.store.errors import DataError

ASSETS = Path(__file__).resolve().parents[2] / "assets"
"""Beside the package `engine`, in a checkout as in an installed wheel (see pyproject.toml)."""


def asset(name: str) -> Path:
    """Return the path of a shipped file or folder, such as `fashion-mnist` or `specs/photos.toml`.

    Raises:
        DataError: Nothing of that name is shipped.
    """
    path = ASSETS / name
    if not path.exists():
        raise DataError(
            f"{path} is missing; the installation is not whole. Install Dataloupe again."
        )
    return path
