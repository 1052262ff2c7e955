"""Studies that several tests read stay as they are: who writes into one fails.

A study is shared if a fixture of a wider scope than one test gives it. A test that writes takes a
copy of its own (tests/builders/copies.py). conftest.py registers this plugin.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Study

_Files = dict[str, tuple[int, int]]
_shared: dict[Path, _Files] = {}
"""Folders of shared studies, and what was in them when they were last looked at."""


def _files(root: Path) -> _Files:
    """Size and time of change of every file, except locks and the list of jobs.

    The runner of a browser test's job closes the list only when it has been idle for a while, so
    the list changes during a later test.
    """
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and path.name != ".lock" and not path.name.startswith("jobs.sqlite")
    }


def _check(who: str, node: Any) -> None:
    """Pages in a browser are visited one after the other; theirs may change."""
    for root, before in _shared.items():
        _shared[root] = now = _files(root)
        changed = sorted({name for name, _ in before.items() ^ now.items()})
        if changed and "browser" not in node.path.parts:
            pytest.fail(f"{who} wrote into a study that others read: {root}, {changed}", False)


def _studies(value: Any) -> Iterator[Study]:
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, Study):
            yield one


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    value = yield
    _check(f"The fixture {fixturedef.argname}", request.node)
    if fixturedef.scope != "function":
        for study in _studies(value):
            _shared.setdefault(study.root, _files(study.root))
    return value


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    value = yield  # Fixtures of the test may put back what it changed.
    _check(item.nodeid, item)
    return value
