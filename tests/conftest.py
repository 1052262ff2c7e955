"""Small real data and one small built study that the tests share."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
import torch
from hypothesis import HealthCheck, settings
from streamlit import config
from streamlit.components.v2 import manifest_scanner
from streamlit.runtime.scriptrunner.script_cache import ScriptCache
from streamlit.testing.v1 import AppTest, app_test, local_script_runner

from dashboard.read.studies import STUDY_VARIABLE
from engine import Study
from engine.running.jobs.kinds import KINDS
from tests.builders import corrections, diffusion, facts, other_tasks, pairs
from tests.builders.built_once import built_once
from tests.builders.copies import copy_of
from tests.builders.job_kinds import TEST_KINDS
from tests.builders.job_processes import end_everything
from tests.builders.sentences import sentences_study
from tests.builders.synthetic_study import write_study
from tests.builders.tiny_bert import write_tiny_bert
from tests.builders.toy_task import trusted, write_toy_study
from tests.untouched import pytest_fixture_setup, pytest_runtest_teardown

__all__ = ["pytest_fixture_setup", "pytest_runtest_teardown"]  # hooks
torch.set_num_threads(1)
# How long examples take to make says how busy the machine is, and nothing of the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
# Everything is written with fsync. On a disk a build waits for it longer than it computes, so the
# tests' folders are in memory if there is room; pytest removes those of tests that passed.
_MEMORY = Path("/dev/shm")
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 4 * 2**30:
    os.environ.setdefault("TMPDIR", str(_MEMORY))
    # Set, and not found out by writing a file: a process that tries uploads may write none.
    tempfile.tempdir = os.environ["TMPDIR"]
_CONFIGURATION = tempfile.TemporaryDirectory(prefix="dataloupe-tests-")
os.environ["XDG_CONFIG_HOME"] = _CONFIGURATION.name  # which studies are trusted is kept there
# Every run of an AppTest would read about all installed packages, in most of its time, compile its
# pages anew, and look for magic.
manifest_scanner.scan_component_manifests = functools.cache(
    manifest_scanner.scan_component_manifests
)
config.set_option("runner.magicEnabled", False)
_SCRIPTS = ScriptCache()
for _module in (app_test, local_script_runner):
    setattr(_module, "ScriptCache", lambda: _SCRIPTS)  # noqa: B010 - not an exported name

SLOWEST = (
    "tests/build/test_build.py",
    "tests/applications/test_unlearning.py",
    "tests/applications/test_compare.py",
    "tests/browser/",
    "tests/test_docs.py",
    "tests/running/",
    "tests/test_notebook.py",
    "tests/cli/",
    "tests/applications/",
    "tests/build/",
    "tests/dashboard/",
    "tests/test_docs_site.py",
    "tests/test_seam.py",
    "tests/exchange/",
    "tests/models/",
)
"""Files and folders that come first if two processes share the tests: when a run ends is decided
by what starts last."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep our order; by default, files with many tests come first, which may be quick ones."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow files first, if several processes run them."""
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(SLOWEST)}

        def place(item: pytest.Item) -> int:
            starts = [p for name, p in places.items() if item.nodeid.startswith(name)]
            return min(starts, default=len(places))

        items.sort(key=place)  # stable: the order within a file stays


APP = Path(__file__).parent.parent / "dashboard" / "app.py"

SMALL_STUDY = """\
name = "Small Fashion-MNIST"
seed = 3

[data]
source = "fashion-mnist"
train_limit = 300
test_limit = 60

[task]
mean = 0.286
std = 0.353

[algorithms.mlp]
architecture = "mlp"
architecture_options = { widths = [32] }
epochs = 4
learning_rate = 0.05
batch_size = 64
checkpoints = 2

[search]
top_k = 20
map_epochs = 20

[uploads]
max_mib = 20

[subset_runs]
masks = 15
"""


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A whole study of 300 + 60 pictures. Read it, never write into it."""
    return Study.open(
        built_once(tmp_path_factory, "small", lambda root: Study.create(root, SMALL_STUDY))
    )


@pytest.fixture
def own_study(small_study: Study, tmp_path: Path) -> Study:
    """A copy of it that a test may write into."""
    return copy_of(small_study, tmp_path / "own")


@pytest.fixture(scope="session")
def toy_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A whole study of a task of the user's own, without classes. Read it, never write into it."""
    return trusted(built_once(tmp_path_factory, "toy", write_toy_study))


@pytest.fixture(scope="session")
def text_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A whole study of 200 + 40 sentences. Read it, never write into it."""
    return Study.open(built_once(tmp_path_factory, "text", sentences_study))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of transformers with a tiny BERT for two classes. Read it, never write into it."""
    return write_tiny_bert(tmp_path_factory.mktemp("transformers") / "bert")


@pytest.fixture(scope="session")
def brightness_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A whole study of image regression. Read it, never write into it."""
    return Study.open(built_once(tmp_path_factory, "brightness", other_tasks.brightness_study))


@pytest.fixture(scope="session")
def colors_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A whole study of multi-label texts. Read it, never write into it."""
    return Study.open(built_once(tmp_path_factory, "colors", other_tasks.colors_study))


@pytest.fixture(scope="session")
def corrected_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Facts with corrections, and models that were trained with and without these: built."""
    return Study.open(built_once(tmp_path_factory, "corrected", corrections.corrected_study))


@pytest.fixture(scope="session")
def facts_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A whole study of source and target texts. Read it, never write into it."""
    return Study.open(built_once(tmp_path_factory, "facts", facts.facts_study))


@pytest.fixture(scope="session")
def squares_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A whole study of diffusion. Read it, never write into it."""
    return Study.open(built_once(tmp_path_factory, "squares", diffusion.squares_study))


@pytest.fixture(scope="session")
def made_study(squares_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A whole study of what the models of `squares_study` made. Read it, never write into it."""

    def write(folder: Path) -> Study:
        return diffusion.made_study(squares_study, folder / "study")

    return Study.open(built_once(tmp_path_factory, "made", write))


@pytest.fixture(scope="session")
def pairs_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A whole study of pictures with captions. Read it, never write into it."""
    return Study.open(built_once(tmp_path_factory, "pairs", pairs.pairs_study))


@pytest.fixture
def study_folder(tmp_path: Path) -> Path:
    """A folder with the small study's spec, not built."""
    return Study.create(tmp_path / "study", SMALL_STUDY).root


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Open a page of a study at some URL parameters, in a server that has seen nothing yet."""
    st.cache_resource.clear()

    def open_page(study: Study, view: str = "explore", /, **parameters: str) -> AppTest:
        monkeypatch.setenv(STUDY_VARIABLE, str(study.root))
        app = AppTest.from_file(str(APP), default_timeout=30)
        for name, value in parameters.items():
            app.query_params[name] = value
        if "_" in view or view == "explore":
            app.run()  # Only then is it known that its address is another than its file's name.
        if view != "overview":
            app.switch_page(f"views/{view}.py")
        app.run()
        assert not app.exception
        return app

    return open_page


@pytest.fixture
def idle_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    """A study without anything built, whose jobs can be those of job_kinds.py too."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "site")
    for name, kind in TEST_KINDS.items():
        monkeypatch.setitem(KINDS, name, kind)
    study = write_study(tmp_path / "study", stage="spec")
    yield study
    for folder in (study.root, study.root.with_name("moved")):
        if folder.exists():
            end_everything(folder)
