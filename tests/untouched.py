"""Studies that several tests read stay as they are: who writes into one fails.

A study is shared if a fixture of a wider scope than one test gives it. A test that writes takes a
copy of its own (tests/builders/copies.py). conftest.py registers this plugin.

After each test we look at the studies that its fixtures gave it, and after the last test of a file
at all; at all after each test would take minutes, as a worker of the suite sees some 40 studies.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Study

_Files = dict[str, tuple[int, int]]
_shared: dict[Path, _Files] = {}
"""Folders of shared studies, and what was in them when they were last looked at."""
_of_one_file: dict[Path, Path] = {}
"""For those that the tests of one file share, this file."""


def _files(root: str, prefix: str = "") -> _Files:
    """Size and time of change of every file, except locks and the list of jobs.

    The runner of a browser test's job closes the list only when it has been idle for a while, so
    the list changes during a later test.
    """
    found: _Files = {}
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found |= _files(entry.path, f"{prefix}{entry.name}/")
            elif entry.name != ".lock" and not entry.name.startswith("jobs.sqlite"):
                state = entry.stat(follow_symlinks=False)
                found[prefix + entry.name] = (state.st_size, state.st_mtime_ns)
    return found


def _check(who: str, node: Any, roots: Iterable[Path]) -> None:
    """Pages in a browser are visited one after the other; theirs may change."""
    for root in roots:
        before = _shared[root]
        _shared[root] = now = _files(str(root))
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
    if fixturedef.scope != "function":  # what those of one test write, the test wrote
        _check(f"The fixture {fixturedef.argname}", request.node, list(_shared))
        for study in _studies(value):
            if study.root not in _shared:
                _shared[study.root] = _files(str(study.root))
                if fixturedef.scope != "session":
                    _of_one_file[study.root] = request.path
    return value


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Function, nextitem: pytest.Item | None
) -> Generator[None, Any, Any]:
    value = yield  # Fixtures of the test may put back what it changed.
    given = {study.root for one in item.funcargs.values() for study in _studies(one)}
    _check(item.nodeid, item, [root for root in _shared if root in given])
    if nextitem is None or nextitem.path != item.path:
        _check(f"A test of {item.path}", item, list(_shared))
        for root in [root for root, path in _of_one_file.items() if path == item.path]:
            del _shared[root], _of_one_file[root]
    return value
