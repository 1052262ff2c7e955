"""Builds give the same bytes however they are interrupted, and never mix files of two specs."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from engine import InterruptedBuild, Progress, SpecError, StaleError, StoreError, Study
from engine.build.stages import stages_of
from engine.store import layout
from engine.study.doctor import examine
from engine.study.lock import locked
from engine.study.methods import has_scores
from engine.study.rankings import read_top
from engine.study.removal_sets import keep_set, kept_sets


def contents(root: Path) -> dict[str, str]:
    """SHA-256 of every file of a study."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def change(root: Path, old: str, new: str) -> Study:
    """Replace a part of study.toml, and open the study again."""
    spec = root / "study.toml"
    text = spec.read_text()
    assert old in text
    spec.write_text(text.replace(old, new))
    return Study.open(root)


@pytest.fixture
def copy(small_study: Study, tmp_path: Path) -> Study:
    """A copy of the built study that a test may break."""
    return Study.open(shutil.copytree(small_study.root, tmp_path / "copy"))


@pytest.mark.determinism
def test_two_builds_give_the_same_bytes(small_study: Study, study_folder: Path) -> None:
    seen: list[Progress] = []
    Study.open(study_folder).build(workers=2, on_progress=seen.append)
    assert contents(study_folder) == contents(small_study.root)
    assert {step.stage for step in seen if step.complete} == set(stages_of(small_study))
    assert all(step.complete for step in Study.open(study_folder).progress())


COMMAND = (sys.executable, "-m", "engine.cli", "build", "--workers", "1")
FORKED = multiprocessing.get_context("forkserver")
"""Builds in processes that have everything loaded: a build anew costs no seconds of imports."""
FORKED.set_forkserver_preload([__name__])


def build_alone(root: Path) -> None:
    Study.open(root).build(workers=0)


def started(root: Path, by_command: bool) -> subprocess.Popen[bytes] | FORKED.Process:
    if by_command:
        return subprocess.Popen([*COMMAND, str(root)], stdout=subprocess.DEVNULL)
    process = FORKED.Process(target=build_alone, args=(root,))
    process.start()
    return process


def killed(root: Path, files: int, seconds: float, by_command: bool) -> bool:
    """Build until so many files are there, and kill that soon after; whether it lived so long."""
    process = started(root, by_command)
    ended = process.poll if by_command else lambda: process.exitcode
    while ended() is None and sum(path.is_file() for path in root.rglob("*")) < files:
        time.sleep(0.002)
    time.sleep(seconds)
    process.kill()
    (process.wait if by_command else process.join)()
    return ended() == -signal.SIGKILL


@pytest.mark.determinism
def test_a_build_killed_at_random_moments_resumes_to_the_same_bytes(
    small_study: Study, study_folder: Path
) -> None:
    """Twice; `benchmarks.robustness` kills dozens of times.

    The second is the command line, with a worker that may still write when its parent dies.
    """
    moments = random.Random(0)
    whole = len(contents(small_study.root))
    for number, files in enumerate(sorted(moments.sample(range(2, whole - 2), 2))):
        assert killed(study_folder, files, moments.uniform(0, 0.05), by_command=number == 1)
    Study.open(study_folder).build(workers=0)
    assert contents(study_folder) == contents(small_study.root)


def test_a_complete_study_is_not_rebuilt(copy: Study) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.root.rglob("*") if path.is_file()}
    copy.build(workers=0)
    assert all(
        path.stat().st_mtime_ns == moment for path, moment in before.items() if path.name != ".lock"
    )


@pytest.mark.parametrize(
    ("old", "new", "stage"),
    [
        ("train_limit = 300", "train_limit = 200", "data"),
        ("mean = 0.286", "mean = 0.5", "data"),
        ("epochs = 4", "epochs = 3", "checkpoints"),
        ("seed = 3", "seed = 4", "data"),  # it draws the sample of train_limit
        ("[search]", "[trak]\ndamping = 2.0\n\n[search]", "tuning"),
        ("top_k = 20", "top_k = 10", "search"),
    ],
)
def test_a_changed_spec_is_refused_with_the_stage_to_rebuild(
    copy: Study, old: str, new: str, stage: str
) -> None:
    before = contents(copy.root)
    study = change(copy.root, old, new)
    with pytest.raises(StaleError, match=f"--rebuild {stage}`"):
        study.build(workers=0)
    change(copy.root, new, old)
    assert contents(copy.root) == before


@pytest.mark.determinism
def test_rebuilding_a_stage_updates_all_later_ones(copy: Study, study_folder: Path) -> None:
    study = change(copy.root, "epochs = 4", "epochs = 3")
    study.build(workers=0, rebuild="checkpoints")
    other = change(study_folder, "epochs = 4", "epochs = 3")
    other.build(workers=0)
    assert contents(copy.root) == contents(other.root)


def test_rebuilding_a_stage_keeps_earlier_ones(copy: Study) -> None:
    study = change(copy.root, "top_k = 20", "top_k = 10")
    checkpoints = layout.checkpoint_file(copy.root, "mlp", 0).stat().st_mtime_ns
    study.build(workers=0, rebuild="search")
    assert read_top(study)["support_index"].shape == (60, 10)
    assert layout.checkpoint_file(copy.root, "mlp", 0).stat().st_mtime_ns == checkpoints
    with pytest.raises(SpecError, match="no stage 'all'"):
        study.build(workers=0, rebuild="all")


def test_adding_checkpoints_reuses_existing_ones(copy: Study) -> None:
    scored = layout.dual_file(copy.root, "mlp", 0)
    before = [
        layout.checkpoint_file(copy.root, "mlp", 0).stat().st_mtime_ns,
        scored.stat().st_mtime_ns,
    ]
    study = change(copy.root, "checkpoints = 2", "checkpoints = 3")
    with pytest.raises(StaleError, match="--rebuild predictions`"):
        study.build(workers=0)
    study.build(workers=0, rebuild="predictions")
    assert study.badge().checkpoints == 3
    assert [
        layout.checkpoint_file(copy.root, "mlp", 0).stat().st_mtime_ns,
        scored.stat().st_mtime_ns,
    ] == before


def test_ctrl_c_keeps_finished_work(study_folder: Path) -> None:
    study = Study.open(study_folder)

    def stop_after_the_first_checkpoint(step: Progress) -> None:
        if step.stage == "checkpoints" and step.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedBuild, match="continues from here"):
        study.build(workers=0, on_progress=stop_after_the_first_checkpoint)
    assert layout.checkpoint_file(study.root, "mlp", 0).exists()
    assert not has_scores(study, "mlp")


def test_only_one_process_builds_a_study(copy: Study) -> None:
    with locked(copy), pytest.raises(StoreError, match="by another process"):
        Study.open(copy.root).build(workers=0)


# --- broken files ------------------------------------------------------------------------------


def spoil(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        # Parquet's footer has parts that no reader uses; its first pages have none.
        content[60 if path.suffix == ".parquet" else len(content) * 9 // 10] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["cut", "altered"])
def test_doctor_names_the_one_broken_file(copy: Study, damage: str) -> None:
    for name in made_files(copy.root):
        path = copy.root / name
        whole = path.read_bytes()
        spoil(path, damage)
        (finding,) = examine(copy).broken
        assert str(path) in finding
        path.write_bytes(whole)
    assert examine(copy).broken == []


def test_a_build_replaces_files_that_doctor_removed(small_study: Study, copy: Study) -> None:
    for name in made_files(copy.root):
        spoil(copy.root / name, "altered")
    examine(copy, repair=True)
    Study.open(copy.root).build(workers=0)
    assert contents(copy.root) == contents(small_study.root)
    assert examine(copy).broken == []


def test_doctor_sets_user_made_files_aside_instead_of_removing_them(copy: Study) -> None:
    kept = keep_set(copy, [1, 2, 3], "three that I know")
    path = next((copy.root / "sets").glob("*.json"))
    spoil(path, "cut")
    (finding,) = examine(copy).broken
    assert "A person made it, so no build makes it again" in finding
    content = path.read_bytes()
    examine(copy, repair=True)
    assert not path.exists()
    assert path.with_name(f"{path.name}.broken").read_bytes() == content
    assert examine(copy).broken == []
    assert kept.key not in [one.key for one in kept_sets(copy, 10)]


def made_files(root: Path) -> list[str]:
    """Files that stages write: all but the lock, the spec and the store's format."""
    return [name for name in contents(root) if "/" in name]


def test_any_single_removed_file_is_restored(small_study: Study, copy: Study) -> None:
    """One of each kind: the last of those that differ by number alone, such as subset runs."""
    whole = contents(small_study.root)
    for name in {re.sub(r"\d+", "0", name): name for name in made_files(copy.root)}.values():
        (copy.root / name).unlink()
        Study.open(copy.root).build(workers=0)
        assert contents(copy.root) == whole, name


def test_a_full_disk_loses_nothing(small_study: Study, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted as root")
    try:
        study = Study.create(disk / "study", (small_study.root / "study.toml").read_text())
        with pytest.raises(StoreError, match="disk is full"):
            study.build(workers=0)
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        study.build(workers=0)
        assert contents(study.root) == contents(small_study.root)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_newer_store_is_refused(copy: Study) -> None:
    from engine import store

    store.write_json(layout.format_file(copy.root), {"format": 999}, "")
    with pytest.raises(StoreError, match="newer Dataloupe"):
        Study.open(copy.root)


def test_an_older_store_is_refused(copy: Study) -> None:
    from engine import store

    store.write_json(layout.format_file(copy.root), {"format": 1}, "")
    with pytest.raises(
        StoreError, match=r"older Dataloupe .* Build it again into a different folder"
    ):
        Study.open(copy.root)


def test_a_removed_data_folder_is_rebuilt_and_the_rest_is_kept(copy: Study) -> None:
    whole = contents(copy.root)
    stamps = {
        path: path.stat().st_mtime_ns for path in (copy.root / "algorithms").rglob("*.safetensors")
    }
    shutil.rmtree(layout.dataset_file(copy.root).parent)
    layout.format_file(copy.root).unlink()
    Study.open(copy.root).build(workers=0)
    assert contents(copy.root) == whole
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


# --- variants ----------------------------------------------------------------------------------


def test_the_users_checkpoints_replace_training(small_study: Study, study_folder: Path) -> None:
    for checkpoint in range(2):
        shutil.copy(
            layout.checkpoint_file(small_study.root, "mlp", checkpoint),
            study_folder / f"{checkpoint}.safetensors",
        )
    spec = study_folder / "study.toml"
    spec.write_text(
        spec.read_text().replace("checkpoints = 2", 'weights = ["0.safetensors", "1.safetensors"]')
    )
    study = Study.open(study_folder)
    study.build(workers=0)
    np.testing.assert_allclose(
        study.scores([3, 5], method="trak"), small_study.scores([3, 5], method="trak"), rtol=1e-5
    )


@pytest.mark.determinism
def test_the_primal_solver_agrees_with_the_dual(study_folder: Path) -> None:
    spec = study_folder / "study.toml"
    narrow = spec.read_text().replace("widths = [32]", "widths = [4]").split("[subset_runs]")[0]
    # The model has 3,190 parameters, so features of that width are the gradients themselves. λ is
    # relative to the mean diagonal: of an n × n matrix for the dual, of a p × p one for the primal.
    solvers = {"dual-exact": 3.0, "primal": 3.0 * 3190 / 300}
    scores = []
    for solver, damping in solvers.items():
        study = Study.create(
            study_folder / solver,
            f'{narrow}\n[trak]\nsolver = "{solver}"\ndamping = {damping}\nproj_dim = 4096\n'
            'storage = "float32"\n',
        )
        study.build(workers=0)
        assert study.badge(method="trak").solver == solver
        scores.append(study.scores(range(60), method="trak"))
    dual, primal = scores
    assert np.abs(dual - primal).max() < 1e-3 * np.abs(dual).max()


def test_the_soft_threshold_shrinks_every_score(study_folder: Path) -> None:
    spec = study_folder / "study.toml"
    text = spec.read_text() + "\n[trak]\ndamping = 1.5\ntempering = 0.5\nsoft_threshold = "
    found = []
    for threshold in ("0", "0.5"):
        spec.write_text(text + threshold)
        study = Study.open(study_folder)
        study.build(workers=0, rebuild="trak")
        found.append(study.scores(range(60), method="trak"))
    plain, shrunk = found
    threshold = 0.5 * plain.std(axis=1, keepdims=True)
    expected = np.sign(plain) * np.maximum(np.abs(plain) - threshold, 0)
    np.testing.assert_allclose(shrunk, expected, atol=1e-6 * np.abs(plain).max())


def test_workers_end_with_their_build(study_folder: Path) -> None:
    spec = study_folder / "study.toml"
    spec.write_text(spec.read_text().replace("epochs = 4", "epochs = 100000"))
    command = [
        sys.executable,
        "-m",
        "engine.cli",
        "build",
        str(study_folder),
        "--workers",
        "1",
    ]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (workers := children_of(child.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.kill()
    child.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []
