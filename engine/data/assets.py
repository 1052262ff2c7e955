"""The files that Dataloupe ships: the embedded dataset and the specs of `dataloupe init`."""

from __future__ import annotations

from pathlib import Path

from engine.store.errors import DataError

ASSETS = Path(__file__).resolve().parents[2] / "assets"
"""Next to the package `engine`, in a checkout and in an installed wheel (see pyproject.toml)."""


def asset(name: str) -> Path:
    """Return the path of a shipped file or folder, such as `fashion-mnist` or `specs/photos.toml`.

    Raises:
        DataError: There is no file or folder of that name.
    """
    path = ASSETS / name
    if not path.exists():
        raise DataError(
            f"{path} is missing; the installation is not whole. Install Dataloupe again."
        )
    return path
