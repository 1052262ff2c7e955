"""Trust in code that a study names: what it is bound to, where it is kept, what may be named."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engine.store.errors import DataloupeError, SpecError, UntrustedCode
from engine.store.trust import (
    Code,
    is_trusted,
    load_code,
    revoke,
    trust,
    trust_file,
    trusted_studies,
)

ARCHITECTURE = ("encoding", "n_classes")
MODULE = """\
from functools import lru_cache, partial
from os import system
from subprocess import Popen

class Net:
    def __init__(self, encoding, n_classes): ...

def net(encoding, n_classes, width=3): ...
def unused(_encoding, n_classes, **options): ...
def library(path, ignore_errors=False): ...
def needs_more(encoding, n_classes, width): ...
def data(): ...
cached = lru_cache(net)
part = partial(net, width=1)
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module `sent` inside, which is also the current folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "sent.py").write_text(MODULE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    monkeypatch.delitem(sys.modules, "sent", raising=False)
    yield folder
    sys.modules.pop("sent", None)


NET = Code.of("python:sent:net", {"width": 4})


def test_code_is_imported_only_once_it_is_trusted(study: Path) -> None:
    for folder in (study, None):
        with pytest.raises(UntrustedCode, match=r"python:sent:net with") as caught:
            load_code(NET, folder, ARCHITECTURE)
        assert "\n" not in str(caught.value)
    assert "sent" not in sys.modules
    trust(study, [NET])
    assert load_code(NET, study, ARCHITECTURE).__name__ == "net"
    assert not list(study.rglob("*.pyc"))  # or it would have to be trusted again
    assert is_trusted(study, NET)
    assert revoke(study)
    assert not revoke(study)
    with pytest.raises(UntrustedCode):
        load_code(NET, study, ARCHITECTURE)


@pytest.mark.parametrize(
    "change",
    ["name", "options", "module", "new module", "module in a folder", "copy", "moved"],
)
def test_what_changed_must_be_trusted_again(study: Path, change: str, tmp_path: Path) -> None:
    trust(study, [NET])
    code = NET
    if change == "name":
        code = Code.of("python:sent:data", {"width": 4})
    elif change == "options":
        code = Code.of(NET.name, {"width": 5})
    elif change == "module":
        (study / "sent.py").write_text(MODULE + "\n")
    elif change == "new module":
        (study / "numpy.py").write_text("")
    elif change == "module in a folder":
        (study / "algorithms" / "net").mkdir(parents=True)
        (study / "algorithms" / "net" / "hidden.py").write_text("")
    elif change == "copy":
        study = Path(shutil.copytree(study, tmp_path / "copy"))
    else:
        study = study.rename(tmp_path / "moved")
    assert not is_trusted(study, code)


def test_what_does_not_name_code_may_change(study: Path, tmp_path: Path) -> None:
    trust(study, [NET])
    (study / "study.toml").write_text("# a comment")
    (study / ".venv" / "lib").mkdir(parents=True)
    (study / ".venv" / "lib" / "other.py").write_text("")
    (tmp_path / "link").symlink_to(study)
    assert is_trusted(study, NET)
    assert is_trusted(tmp_path / "link" / ".." / "study", NET)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("python:subprocess:Popen", "part of Python itself"),
        ("python:os:system", "part of Python itself"),
        ("python:builtins:exec", "part of Python itself"),
        ("python:xml.dom.minidom:parse", "part of Python itself"),
        ("python:sent:Popen", "is a class"),
        ("python:sent:system", "not a function"),
        ("python:sent:Net", "is a class, not a function"),
        ("python:sent:part", "not a function"),
        ("python:sent:cached", "not a function"),
        ("python:sent:library", r"takes \(path, ignore_errors=False\)"),
        ("python:sent:needs_more", r"takes \(encoding, n_classes, width\)"),
        ("python:sent:data", r"takes \(\)"),
        ("python:sent:nothing", "cannot be imported"),
        ("python:sent", "cannot be imported"),
        ("python:quits:net", "cannot be imported: 3"),
        ("python:typo:net", "cannot be imported"),
    ],
)
def test_only_functions_of_the_users_own_can_be_named(study: Path, name: str, words: str) -> None:
    (study / "quits.py").write_text("raise SystemExit(3)")
    (study / "typo.py").write_text("def net(:")
    trust(study, [Code.of(name)])
    with pytest.raises(SpecError, match=words) as caught:
        load_code(Code.of(name), study, ARCHITECTURE)
    assert "\n" not in str(caught.value)


def test_functions_that_fit(study: Path) -> None:
    trust(study, [Code.of("python:sent:unused"), Code.of("python:sent:data")])
    assert load_code(Code.of("python:sent:unused"), study, ARCHITECTURE)
    assert load_code(Code.of("python:sent:data"), study, ())


def test_where_the_answers_are_kept(study: Path) -> None:
    other = study.parent / "other"
    for folder in (study, other):
        folder.mkdir(exist_ok=True)
        trust(folder, [NET])
    assert trust_file() == study.parent / "configuration" / "dataloupe" / "trust.json"
    assert stat.S_IMODE(trust_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(trust_file().parent.stat().st_mode) == 0o700
    assert trusted_studies() == {str(folder): [NET] for folder in sorted((study, other))}


@pytest.mark.parametrize("config", ["", "relative", "~/x"])
def test_a_configuration_folder_that_is_not_absolute_is_ignored(
    config: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", config)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trust_file() == tmp_path / ".config" / "dataloupe" / "trust.json"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version": 2, "studies": {}}',
        '{"version": 1, "studies": []}',
        '{"version": 1, "studies": {"/x": {"code": [["a"]], "files": ""}}}',
        '{"version": 1, "studies": {"/x": {"code": [], "files": 3}}}',
        "[" * 100_000,
        "\x00\xff",
    ],
)
def test_a_damaged_file_trusts_nothing_and_says_so(study: Path, content: str) -> None:
    trust(study, [NET])
    trust_file().write_text(content)
    with pytest.raises(DataloupeError, match=r"trust\.json is damaged") as caught:
        is_trusted(study, NET)
    assert "\n" not in str(caught.value)


def test_a_file_that_others_can_write_is_not_used(study: Path) -> None:
    trust(study, [NET])
    trust_file().chmod(0o666)
    with pytest.raises(DataloupeError, match="written by others"):
        is_trusted(study, NET)


def test_two_processes_forget_nothing(study: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from engine.store.trust import Code, trust\n"
        "for n in range(20): trust(Path(sys.argv[1]) / str(n), [Code.of('python:sent:net')])"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / name)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        for name in "ab"
    ]
    assert [child.wait() for child in children] == [0, 0]
    assert len(trusted_studies()) == 40
