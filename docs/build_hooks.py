"""Hooks of `mkdocs build`."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
FROM_THE_ROOT = {
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "dashboard/icon.svg": "assets/icon.svg",
}
"""Files from elsewhere in the project, and their place on the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of `FROM_THE_ROOT`; the prefix docs/ is removed from their links."""
    for source, target in FROM_THE_ROOT.items():
        content = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, target, content=content))
    return files
