"""The documentation site: built strictly, it loads nothing from other servers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import engine

ROOT = Path(__file__).parent.parent
LOADS = re.compile(
    r"<(?:script|link|img|iframe|source|video|audio)\b[^>]*?(?:src|href)=[\"']?([^\"' >]+)"
)
CSS_LOADS = re.compile(r"(?:url\(|@import )[\"']?([^\"')]+)")
ELSEWHERE = ("http:", "https:", "//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_pages_load_nothing_from_other_servers(site: Path) -> None:
    loaded = {
        target
        for suffix, pattern in (("html", LOADS), ("css", CSS_LOADS))
        for file in site.rglob(f"*.{suffix}")
        for target in pattern.findall(file.read_text())
    }
    assert any(target.endswith(".css") for target in loaded)
    assert not [target for target in loaded if target.startswith(ELSEWHERE)]


def test_the_api_reference_has_everything_public(site: Path) -> None:
    page = (site / "api.html").read_text()
    for name in ("Study.open", "Study.explain", *engine.__all__):
        assert f'id="engine.{name}"' in page, name


def test_the_notebook_security_and_changes_are_there(site: Path) -> None:
    assert (site / "notebooks" / "small-study.ipynb").exists()
    assert "Report a problem" in (site / "security.html").read_text()
    assert (site / "changelog.html").exists()


def test_how_to_cite_names_the_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    titles = " ".join(reference["title"] for reference in citation["references"])
    for name in ("Lens of Data", "TRAK", "Datamodels", "ModelDiff"):
        assert name in titles
