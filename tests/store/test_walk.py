"""What is removed or replaced while it is read: by deleted uploads, pages, jobs and builds."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboard.read.stored_files import stage_files
from engine import Study, store
from engine.applications.modeldiff.notes import notes
from engine.applications.unlearning.audit_record import read_audits
from engine.applications.verification.record import read_verifications
from engine.exchange.uploads import keeping, room
from engine.store import files, layout, scratch_folders
from engine.store.walk import files_below, paths_in, total_size
from engine.study import audit_log, doctor
from engine.study.methods import imported_methods
from engine.study.removal_sets import kept_sets
from engine.study.run_banks import finished_runs
from engine.study.slices import saved_slices
from engine.study.tags import changes
from engine.study.uploads import read_uploads
from tests.builders.synthetic_study import write_study

SHA = "0" * 64
COMPARISON = "c" * 16
READERS: dict[str, tuple[Callable[[Path], Path], Callable[[Study], Any], Any]] = {
    "slices": (lambda root: layout.slice_file(root, "mine"), saved_slices, ([], [])),
    "removal sets": (
        lambda root: layout.removal_set_file(root, "0" * 16),
        lambda study: kept_sets(study, 9),
        [],
    ),
    "tags": (
        lambda root: layout.triage_file(root, "0"),
        lambda study: changes(study, "cnn"),
        [],
    ),
    "uploads": (
        lambda root: layout.upload_file(root, "upload-000000000000"),
        lambda study: read_uploads(study.root),
        {},
    ),
    "verifications": (
        lambda root: layout.verification_file(root, "cnn", "one"),
        lambda study: read_verifications(study, "cnn"),
        [],
    ),
    "audits": (
        lambda root: layout.unlearning_audit_file(root, "cnn", "one"),
        lambda study: read_audits(study, "cnn"),
        [],
    ),
    "comparisons": (
        lambda root: layout.comparison_file(root, COMPARISON),
        lambda study: keeping.remove_results(study, "upload-000000000000"),
        None,
    ),
    "notes": (
        lambda root: layout.direction_note_file(root, COMPARISON, "a", 0),
        lambda study: notes(study, COMPARISON),
        {},
    ),
    "space of uploads": (
        lambda root: layout.uploaded_weights_file(root, SHA),
        room.used_bytes,
        0,
    ),
    "doctor": (
        lambda root: layout.comparison_file(root, COMPARISON),
        lambda study: doctor.examine(study, repair=True).broken,
        [],
    ),
    "sprite sheets": (
        lambda root: layout.sprite_file(root, "test", 0),
        lambda study: doctor.examine(study).broken,
        [],
    ),
    "methods": (
        lambda root: layout.method_file(root, "cnn", "other"),
        lambda study: imported_methods(study, "cnn"),
        {},
    ),
    "runs of a bank": (
        lambda root: layout.run_file(root, "cnn", 0, 0),
        lambda study: finished_runs(study, "cnn"),
        set(),
    ),
    "files of a stage": (
        lambda root: layout.run_file(root, "cnn", 0, 0),
        lambda study: stage_files(study, "bank", "cnn"),
        [],
    ),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("plain") / "study", stage="data")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("removed", ["file", "folder"])
def test_a_listed_file_that_somebody_else_removes_before_it_is_read(
    name: str, removed: str, plain: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.open(shutil.copytree(plain.root, tmp_path / "study"))
    where, read, nothing = READERS[name]
    path = where(study.root)
    if not path.exists():
        store.write_json(path, {}, "")
    iterate, scan, exists = Path.iterdir, os.walk, Path.exists

    def remove() -> None:
        if removed == "folder":
            shutil.rmtree(path.parent, ignore_errors=True)
        path.unlink(missing_ok=True)

    def listed(folder: Path) -> Iterator[Path]:
        found = list(iterate(folder))
        if folder == path.parent:
            remove()
        return iter(found)

    def walked(folder: Path) -> Iterator[Any]:
        found = list(scan(folder))
        if folder in path.parents:
            remove()
        return iter(found)

    def exists_still(one: Path) -> bool:
        there = exists(one)
        if one == path:
            remove()
        return there

    monkeypatch.setattr(Path, "exists", exists_still)
    monkeypatch.setattr(Path, "iterdir", listed)
    monkeypatch.setattr(os, "walk", walked)
    assert read(study) == nothing
    assert not exists(path)


def test_folders_that_are_missing_or_removed_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b/2.txt", "b/c/3.txt", "1.txt", "gone/4.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    scan = os.scandir

    def remove_then_scan(path: str) -> object:
        if str(path).endswith("gone"):
            (Path(path) / "4.txt").unlink()
            Path(path).rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", remove_then_scan)
    kept = [tmp_path / name for name in ("1.txt", "b/2.txt", "b/c/3.txt")]
    assert files_below(tmp_path) == kept
    assert paths_in(tmp_path, "*.txt") == kept[:1]
    assert total_size([*kept, tmp_path / "gone", kept[0] / "below a file"]) == 5 + 7 + 9
    for missing in (tmp_path / "missing", kept[0]):
        assert files_below(missing) == paths_in(missing) == []


def test_tensors_are_of_one_file_if_another_takes_its_name_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shard.safetensors"
    store.write_tensors(path, {"a": np.ones(3), "b": np.ones(4)}, "same")
    check = files.check_fingerprint

    def replace_then_check(*arguments: Any) -> None:
        store.write_tensors(path, {"a": np.zeros(4), "b": np.zeros(9)}, "same")
        check(*arguments)

    monkeypatch.setattr(files, "check_fingerprint", replace_then_check)
    found = store.read_tensors(path, "same")
    assert found["a"].tolist() == [1.0] * 3
    assert found["b"].tolist() == [1.0] * 4


@pytest.mark.parametrize("moment", ["before it is locked", "before it holds a file"])
def test_a_scratch_folder_taken_for_left_behind_is_made_again(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, lock, done = scratch_folders.tempfile.mkdtemp, fcntl.flock, []

    def clean_once(when: str) -> None:
        if when == moment and not done:
            done.append(when)
            scratch_folders.remove_left_behind(tmp_path, "mine-")

    def lock_late(*arguments: Any) -> None:
        clean_once("before it is locked")
        lock(*arguments)

    def make_then_clean(**arguments: Any) -> str:
        folder = make(**arguments)
        clean_once("before it holds a file")
        return folder

    monkeypatch.setattr(scratch_folders.fcntl, "flock", lock_late)
    monkeypatch.setattr(scratch_folders.tempfile, "mkdtemp", make_then_clean)
    folder, alive = scratch_folders.make_scratch_folder(tmp_path, "mine-")
    assert paths_in(tmp_path) == [folder]
    scratch_folders.remove_left_behind(tmp_path, "mine-")
    assert paths_in(folder) == [folder / scratch_folders.ALIVE]
    alive.close()
    scratch_folders.remove_left_behind(tmp_path, "mine-")
    assert done
    assert not paths_in(tmp_path)


def test_the_audit_log_is_read_whole_while_it_is_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[str]] = []
    readers: list[threading.Thread] = []
    rename = Path.replace

    def rename_then_read(path: Path, target: Path) -> Path:
        done = rename(path, target)
        read = lambda: found.append([one.what for one in audit_log.entries(tmp_path, 9)])  # noqa: E731
        readers.append(threading.Thread(target=read))
        readers[-1].start()
        readers[-1].join(0.2)  # it waits for the lock
        return done

    monkeypatch.setattr(Path, "replace", rename_then_read)
    monkeypatch.setattr(audit_log, "LARGEST", 1)
    for number in range(3):
        audit_log.record(tmp_path, "ada", f"change {number}", "done")
    for reader in readers:
        reader.join()
    assert len(found) == 3  # one file of two, then two of three
    for lines in found:
        assert lines == [f"change {n}" for n in reversed(range(len(lines)))]
        assert len(lines) > 1
