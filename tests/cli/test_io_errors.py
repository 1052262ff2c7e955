"""Whatever the system refuses is one line that names the file, and exit code 2."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine import Study
from engine.cli.main import main
from engine.exchange.uploads.keeping import expire
from engine.running.jobs.child import main as run_child
from engine.running.jobs.database import connected, home
from engine.running.jobs.queue import job
from engine.running.processes import run_jobs
from engine.store import files, layout
from engine.store.errors import DataloupeError
from engine.store.io_errors import open_no_link
from engine.store.trust import Code, trust
from engine.study.audit_log import record
from tests.builders.copies import copy_of

ROOT = Path(__file__).parents[2]
REFUSED = {
    "read-only": errno.EROFS,
    "permission denied": errno.EACCES,
    "not permitted": errno.EPERM,
    "disk full": errno.ENOSPC,
    "quota": errno.EDQUOT,
    "name too long": errno.ENAMETOOLONG,
    "stale handle": errno.ESTALE,
    "broken disk": errno.EIO,
    "too many open files": errno.EMFILE,
    "file too large": errno.EFBIG,
}


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let every file of a study that is written fail."""

    def fail(path: Path) -> tuple[int, Path]:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(files, "_locked_temporary", fail)


def command(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("why", REFUSED)
def test_a_file_that_cannot_be_written(
    tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(monkeypatch, REFUSED[why])
    assert command("init", tmp_path / "study") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert str(tmp_path / "study" / "study.toml") in err
    assert os.strerror(REFUSED[why]) in err or "disk is full" in err


@pytest.mark.parametrize("verb", ["build", "import", "trust", "repair", "job"])
def test_no_verb_shows_a_traceback(
    own_study: Study,
    tmp_path: Path,
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = own_study.root
    np.save(tmp_path / "scores.npy", np.ones((60, 300), np.float32))
    arguments: dict[str, tuple[object, ...]] = {
        "build": ("build", root, "--workers", 0, "--rebuild", "predictions"),
        "import": ("import", "npy", tmp_path / "scores.npy", "--study", root),
        "trust": ("trust", root, "--yes"),
        "repair": ("doctor", root, "--repair"),
    }
    with connected(root, create=True) as connection:
        connection.execute(
            "INSERT INTO jobs (home, kind, title, parameters, status, attempt, submitted) VALUES "
            "(?, 'build', 'x', '{\"workers\": 0, \"rebuild\": \"predictions\"}', 'running', 1, 0)",
            (home(root),),
        )
    if verb == "trust":
        spec = layout.spec_file(root)
        spec.write_text(spec.read_text().replace('"mlp"\n', '"python:mine:net"\n'))
    if verb == "repair":
        layout.format_file(root).write_text("")

        def fail(path: Path, missing_ok: bool = False) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

        monkeypatch.setattr(Path, "unlink", fail)
    refuse(monkeypatch, errno.EROFS)
    if verb == "job":
        handler = signal.getsignal(signal.SIGTERM)
        assert run_child(root, 1, 1) == 0
        signal.signal(signal.SIGTERM, handler)
        assert "Read-only file system" in job(root, 1).error
    else:
        assert command(*arguments[verb]) == 2
    err = capsys.readouterr().err
    assert "Read-only file system" in err
    assert len(err.strip().splitlines()) == 1


def _folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _loop_instead(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("damage", [_folder_instead, _loop_instead])
@pytest.mark.parametrize("name", ["dataset", "table", "top", "store.json", "study.toml"])
def test_a_file_that_cannot_be_read(
    small_study: Study,
    tmp_path: Path,
    name: str,
    damage: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = Path(shutil.copytree(small_study.root, tmp_path / "copy"))
    path = {
        "dataset": layout.dataset_file(root),
        "table": layout.table_file(root, "test", 0),
        "top": layout.top_test_file(root, "mlp", "trak"),
        "store.json": layout.format_file(root),
        "study.toml": layout.spec_file(root),
    }[name]
    damage(path)
    code = command("explain", root, "--test", 1)
    err = capsys.readouterr().err
    if not (name == "store.json" and code == 0):  # a link to nothing: as if it were missing
        assert code == 2
        assert err.count("\n") == 1


def test_a_name_that_is_too_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("explain", tmp_path / ("x" * 300), "--test", 1) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_locks_and_logs_are_no_links(tmp_path: Path) -> None:
    """Of a study that was sent they could lead to any file of its reader."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "log").symlink_to("precious")
    for mode in ("ab", "wb"):
        with pytest.raises(DataloupeError, match="cannot be written: Too many levels of symbolic"):
            open_no_link(tmp_path / "log", mode)
    assert (tmp_path / "precious").read_text() == "precious"
    with open_no_link(tmp_path / "new", "ab") as file:
        file.write(b"line")
    assert (tmp_path / "new").read_bytes() == b"line"


WRITERS: dict[str, tuple[Callable[[Path], Path], Callable[[Study], object]]] = {
    "lock of uploads": (lambda root: layout.uploads_folder(root) / ".lock", expire),
    "audit log": (
        lambda root: layout.audit_log_file(root, 0),
        lambda study: record(study.root, "ada", "cancel job 3", "done"),
    ),
}


@pytest.mark.parametrize("what", WRITERS)
def test_writers_outside_builds_follow_no_link(
    small_study: Study, tmp_path: Path, what: str
) -> None:
    study = copy_of(small_study, tmp_path / "study")
    path_in, write = WRITERS[what]
    (tmp_path / "precious").write_text("precious")
    path = path_in(study.root)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(DataloupeError, match="Too many levels of symbolic"):
        write(study)
    assert (tmp_path / "precious").read_text() == "precious"


def _read(path: str) -> str:
    return Path(path).read_text()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker(tmp_path: Path, workers: int) -> None:
    found = OSError if workers == 0 else DataloupeError
    with pytest.raises(found, match="Is a directory") as caught:
        run_jobs(_read, [str(tmp_path)], workers, lambda job, result: None)
    assert "\n" not in str(caught.value)


def test_a_trust_file_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(DataloupeError, match=r"trust\.json cannot be written: Not a directory"):
        trust(tmp_path, [Code.of("python:mine:net")])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written(small_study: Study) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        found = subprocess.run(
            [sys.executable, "-P", "-m", "engine.cli", "methods", str(small_study.root)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert "No space left on device" in found.stderr
