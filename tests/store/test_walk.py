"""Walks go on when a folder is removed while it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.store.walk import files_below


def test_sorted_files_of_all_levels(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/c/3.txt", "1.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert files_below(tmp_path) == [tmp_path / n for n in ("1.txt", "b/2.txt", "b/c/3.txt")]
    assert files_below(tmp_path / "missing") == []


def test_a_folder_that_is_removed_meanwhile_has_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gone", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    scan = os.scandir

    def remove_then_scan(path: str) -> object:
        if Path(path).name == "gone":
            (Path(path) / "file").unlink()
            Path(path).rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", remove_then_scan)
    assert files_below(tmp_path) == [tmp_path / "kept" / "file"]
