"""A study that both processes of the suite read: the first builds it, the other copies it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Study


def built_once(factory: pytest.TempPathFactory, name: str, write: Callable[[Path], Study]) -> Path:
    """The folder of a built study, of this process alone.

    Args:
        factory: pytest's.
        name: Names the study among those that are built once.
        write: Writes the study into an empty folder, or below it, with all that it reads.
    """
    own = factory.mktemp(name)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _built(write(own))
    of_all = factory.getbasetemp().parent / f"built-{name}"
    with of_all.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not of_all.exists():
            root = _built(write(own))
            shutil.copytree(own, of_all.with_suffix(".partly")).rename(of_all)
            return root
    shutil.copytree(of_all, own, dirs_exist_ok=True)
    (spec,) = own.rglob("study.toml")
    return spec.parent


def _built(study: Study) -> Path:
    study.build(workers=0)
    return study.root
