"""What is installed and what ships: locked by hashes, and under licenses that allow it."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause", "BSD-3-Clause",
    "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0",
    "OFL-1.1", "PSF-2.0", "Zlib",
}  # fmt: skip
"""No license that asks for the source of what uses a package, or that forbids a use."""
NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License": "Apache-2.0",  # a first line, with the version in the next
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""Names in older metadata → SPDX."""
OWN = (".py", ".typed", ".css", ".js", ".html", ".toml", ".svg", ".csv")
"""What we write ourselves, under the license of the repository."""
OF_OTHERS = {
    "assets/emoji": ("Apache-2.0", "Apache License"),
    "assets/fashion-mnist": ("MIT", "The MIT License (MIT)"),
    "dashboard/fonts": ("OFL-1.1", "SIL OPEN FONT LICENSE Version 1.1"),
}
"""Folder of files of others → their license, and its title in the folder's LICENSE."""


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {normalized(name): version for name, version in pairs}


def test_the_lock_has_the_versions_of_the_constraints_and_a_hash_for_each() -> None:
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    locked = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, version, hashes = re.fullmatch(r"(\S+)==(\S+)((?: +--hash=\S+)+)", line).groups()
            assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", one) for one in hashes.split())
            locked[normalized(name)] = version
    assert locked == {name: version for name, version in pinned().items() if name != "torch"}


def licenses_of(name: str) -> set[str]:
    metadata = importlib.metadata.metadata(name)
    classifiers = [
        one.rpartition(" :: ")[2]
        for one in metadata.get_all("Classifier") or []
        if one.startswith("License :: ")
    ]
    found = metadata.get("License-Expression") or "; ".join(classifiers) or metadata["License"]
    parts = re.split(r" AND |; ", found.splitlines()[0])
    return {NAMES.get(part.strip(), part.strip("() ")) for part in parts}


@pytest.mark.parametrize("name", pinned())
def test_licenses_of_packages(name: str) -> None:
    try:
        found = licenses_of(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("only for `make bench`")
    for one in found:
        assert any(choice in ALLOWED for choice in one.split(" OR ")), (name, one)


def test_licenses_of_what_ships() -> None:
    for folder in ("assets", "dashboard"):
        for path in sorted((ROOT / folder).rglob("*")):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            place = str(path.parent.relative_to(ROOT))
            if place in OF_OTHERS:
                license_, title = OF_OTHERS[place]
                assert license_ in ALLOWED
                assert title in (path.parent / "LICENSE").read_text()
            else:
                assert path.suffix in OWN, f"{path}: under which license?"
                text = path.read_text()
                marks = re.search(r"@license|copyright|\bsourceMappingURL\b", text, re.IGNORECASE)
                assert not marks, f"{path} seems to be of somebody else: {marks}"
    assert "MIT License" in (ROOT / "LICENSE").read_text()
