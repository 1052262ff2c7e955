"""Imports point one way, and reading a study costs no torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from engine import Study

ROOT = Path(__file__).parent.parent
ORDER = (
    "engine.store",
    "engine.models",
    "engine.data",
    "engine.attribution",
    "engine.tasks",
    "engine.study",
    "engine.training",
    "engine.running",
    "engine.build",
    "engine.exchange",
    "engine.applications",
    "engine.api",
    "engine.cli",
    "dashboard",
)
"""From the ground up. A module imports from its own room and those before it."""
MOST_LEVELS = 9
MOST_AT_ROOT = 14
MOST_LINES = 450
MOST_METHODS = 28
LISTING = re.compile(r"\.r?glob\(|\.iterdir\(|\bos\.(listdir|scandir|walk)\(")
MAY_LIST = (
    "engine/data/",
    "engine/exchange/importing/",  # folders of people, which we do not change
    "engine/models/hf_folder.py",
    "engine/running/jobs/process_tree.py",
    "engine/store/trust.py",
    "engine/store/walk.py",
)
LONGER_FILES: dict[str, int] = {
    "engine.store.layout": 580,  # a table of every file of a study, and a function for each
}
"""Files that may be longer, with the reason."""


def room_of(module: str) -> int | None:
    for number, name in enumerate(ORDER):
        if module == name or module.startswith(name + "."):
            return number
    return None


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Modules that a file imports anywhere: in functions and under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = members & MODULES.keys()
            found |= submodules
            if members - submodules:
                found.add(node.module)
    return found


MODULES = {
    module_of(path): path
    for folder in ("engine", "dashboard")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
ROOMS = {module: path for module, path in MODULES.items() if module not in ("engine", "dashboard")}


@pytest.mark.parametrize("module", ROOMS)
def test_imports_point_one_way(module: str) -> None:
    mine = room_of(module)
    assert mine is not None, f"{module} is in no room of ORDER"
    for imported in imports_of(ROOMS[module]):
        assert not (module.startswith("engine") and imported.split(".")[0] == "streamlit")
        theirs = room_of(imported)
        if theirs is not None:
            assert theirs <= mine, f"{module} imports {imported}, which lies above it"


def test_no_circle_of_imports() -> None:
    graph = {
        module: {name for name in imports_of(path) if name in MODULES and name != module}
        for module, path in ROOMS.items()
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"circle: {' → '.join(way[way.index(module) :])} → {module}"
        if module not in done:
            for imported in sorted(graph.get(module, ())):
                visit(imported, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def room_name(module: str) -> str:
    """The room of a module: a folder or a file directly in `engine`; the dashboard is one room."""
    return module if module == "dashboard" else ".".join(module.split(".")[:2])


def test_the_house_has_few_levels() -> None:
    """A room stands one level above the highest that it imports from: at most nine levels."""
    graph: dict[str, set[str]] = {}
    for module, path in ROOMS.items():
        room = "dashboard" if module.startswith("dashboard") else room_name(module)
        below = {
            "dashboard" if name.startswith("dashboard") else room_name(name)
            for name in imports_of(path)
            if name in ROOMS
        }
        graph.setdefault(room, set()).update(below - {room})

    def level(room: str) -> int:
        return 1 + max((level(below) for below in graph[room]), default=0)

    levels = {room: level(room) for room in graph}
    assert max(levels.values()) <= MOST_LEVELS, levels


def test_the_root_of_engine_is_small() -> None:
    names = {
        path.name
        for path in (ROOT / "engine").iterdir()
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())
    }
    assert len(names) <= MOST_AT_ROOT, sorted(names)


@pytest.mark.parametrize("module", ROOMS)
def test_files_and_classes_can_be_read_in_one_sitting(module: str) -> None:
    text = ROOMS[module].read_text()
    lines = len(text.splitlines())
    assert lines <= LONGER_FILES.get(module, MOST_LINES), f"{module} has {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            public = [
                part.name
                for part in node.body
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")
            ]
            assert len(public) <= MOST_METHODS, f"{module}.{node.name}: {len(public)} methods"


@pytest.mark.parametrize(
    "path",
    [
        str(path.relative_to(ROOT))
        for ending in ("css", "js", "html")
        for room in ("engine", "dashboard", "assets/reports")
        for path in sorted((ROOT / room).rglob(f"*.{ending}"))
    ],
)
def test_pages_styles_and_scripts_can_be_read_in_one_sitting(path: str) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= MOST_LINES


def test_the_public_study_has_few_methods() -> None:
    """Inherited ones count, too."""
    names = [name for name in dir(Study) if not name.startswith("_")]
    assert len(names) <= MOST_METHODS, names


def test_opening_a_study_does_not_import_torch() -> None:
    script = (
        "import sys, engine, engine.cli.main, engine.attribution.search.vector_index\n"
        "import engine.attribution.scores\n"
        "import engine.running.jobs.child, engine.build.job\n"
        "assert 'torch' not in sys.modules and 'streamlit' not in sys.modules, 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_no_html_or_css_in_the_engine() -> None:
    """Pages lie in assets/, where templates escape what they are filled with."""
    markup = re.compile(r"</[a-z]|<(div|span|table|style|html|body|img)\b|[;{] ?(color|font-size):")
    for path in sorted((ROOT / "engine").rglob("*.py")):
        assert not markup.search(path.read_text()), path


def test_no_folder_of_tests_is_skipped(pytestconfig: pytest.Config) -> None:
    """By default pytest skips folders that are named `build` or `dist`."""
    patterns = pytestconfig.getini("norecursedirs")
    folders = {path.parent.name for path in (ROOT / "tests").rglob("test_*.py")}
    skipped = [name for name in folders for pattern in patterns if fnmatch(name, pattern)]
    assert skipped == []


def test_folders_of_a_study_are_listed_by_what_stands_their_removal() -> None:
    """Uploads, jobs, pages and builds remove folders while others list them: engine.store.walk."""
    found = [
        name
        for room in ("engine", "dashboard")
        for path in sorted((ROOT / room).rglob("*.py"))
        if not (name := path.relative_to(ROOT).as_posix()).startswith(MAY_LIST)
        and LISTING.search(path.read_text())
    ]
    assert found == []
