"""Imports point one way, and reading a study costs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    {
        "engine.errors",
        "engine.one_line",
        "engine.plain_csv",
        "engine.softmax",
        "engine.store",
        "engine.sharded_rows",
    },
    {"engine.spec", "engine.bank"},
    {"engine.layout"},
    {"engine.answers", "engine.uploads.record"},
    {
        "engine.data",
        "engine.tasks",
        "engine.models",
        "engine.execution",
        "engine.kept_worker",
        "engine.cluster",
    },
    {"engine.training", "engine.convert", "engine.shortcut"},
    {"engine.attribution"},
    {
        "engine.search",
        "engine.similarity",
        "engine.maps",
        "engine.quality",
        "engine.trust",
        "engine.removal",
        "engine.counterfactual",
    },
    {"engine.study"},
    {"engine.slices", "engine.removal_sets"},
    {"engine.stages"},
    {"engine.live", "engine.retraining", "engine.uploads"},
    {"engine.verification"},
    {"engine.brittle", "engine.flags", "engine.triage", "engine.unlearning"},
    {"engine.brittle_table"},
    {"engine.build", "engine.doctor", "engine.templates", "engine.progress", "engine.launch"},
    {"engine.importing", "engine.modeldiff"},
    {"engine.jobs"},
    {"engine.demo", "engine.case_study"},
    {"engine.cli"},
    {"dashboard"},
]


def layer_of(module: str) -> int | None:
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return number
    return None


def imports_of(path: Path) -> set[str]:
    """Modules imported when the file is: not those inside functions or under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(
    path
    for folder in ("engine", "dashboard")
    for path in (ROOT / folder).rglob("*.py")
    if path != ROOT / "engine" / "__init__.py"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    mine = layer_of(module)
    assert mine is not None, f"{module} has no layer: give it one in {Path(__file__).name}"
    for imported in imports_of(path):
        assert not (module.startswith("engine") and imported.startswith("streamlit"))
        theirs = layer_of(imported)
        if theirs is not None:
            assert theirs <= mine, f"{module} imports {imported}, which lies downstream"


def test_opening_a_study_does_not_import_torch() -> None:
    script = (
        "import sys, engine, engine.cli, engine.search, engine.attribution.scores\n"
        "import engine.jobs.child, engine.jobs.building\n"
        "assert 'torch' not in sys.modules and 'streamlit' not in sys.modules, 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
