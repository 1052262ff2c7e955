"""The command as a process of its own: closed pipes, redirected output, the current folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import engine
from engine import Study
from engine.cli import main as command
from engine.cli.main import EXIT_CLOSED_OUTPUT
from engine.running.jobs import queue
from tests.builders.job_processes import end_everything
from tests.builders.synthetic_study import write_study

ROOT = Path(__file__).parents[2]
DATALOUPE = (sys.executable, "-P", "-m", "engine.cli")
"""Without the current folder on the path, as the installed command has it."""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DATALOUPE, *map(str, arguments)],
        env=ENVIRONMENT,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DATALOUPE, *map(str, arguments)], env=ENVIRONMENT, text=True, capture_output=True, cwd=cwd
    )


def test_the_module_is_the_command() -> None:
    found = run("--version")
    assert (found.returncode, found.stdout) == (0, f"dataloupe {engine.__version__}\n")


# --- pipes ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("process") / "study")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["explain", "{study}", "--test", "3", "--json"],
        ["explain", "{study}", "--test", "3"],
        ["doctor", "{study}"],
    ],
)
def test_a_closed_pipe_ends_a_verb_quietly(arguments: list[str], study: Study) -> None:
    child = start(
        *(word.format(study=study.root) for word in arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()  # long before it prints anything
    assert child.stderr.read() == ""
    assert child.wait() == EXIT_CLOSED_OUTPUT
    child.stderr.close()


def test_both_streams_may_be_closed(study: Study) -> None:
    child = start(
        "explain", study.root, "--test", "nobody", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert child.stdout is not None
    child.stdout.close()
    assert child.wait() == EXIT_CLOSED_OUTPUT


def test_head_takes_its_lines(study: Study) -> None:
    command_line = f"{' '.join(DATALOUPE)} explain {study.root} --test 3 --json | head -n 1"
    found = subprocess.run(
        command_line, shell=True, env=ENVIRONMENT, text=True, capture_output=True
    )
    assert (found.stdout, found.stderr) == ("{\n", "")


def test_another_broken_pipe_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_a_worker(arguments: object) -> int:
        raise BrokenPipeError("of a worker")

    monkeypatch.setattr(command, "_run", lose_a_worker)
    with pytest.raises(BrokenPipeError, match="of a worker"):
        command.main([])


# --- files ---------------------------------------------------------------------------------------


def test_a_log_file_fills_while_a_build_runs(study_folder: Path, tmp_path: Path) -> None:
    spec = study_folder / "study.toml"
    spec.write_text(spec.read_text().replace("epochs = 4", "epochs = 100000"))
    log = tmp_path / "log"
    with log.open("w") as file:
        child = start("build", study_folder, "--workers", 0, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 120
        while "Train checkpoints: started." not in log.read_text():
            assert child.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    assert "\x1b" not in log.read_text()


# --- the current folder --------------------------------------------------------------------------

OWN_CODE = """\
import datasets
import numpy as np
from PIL import Image
from torch import nn


def data():
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["dark", "light"])
    )
    rng = np.random.default_rng(0)

    def split(n):
        labels = rng.integers(2, size=n)
        grays = rng.integers(0, 100, (n, 8, 8)) + 100 * labels[:, None, None]
        pictures = [Image.fromarray(gray.astype(np.uint8)) for gray in grays]
        return datasets.Dataset.from_dict({"image": pictures, "label": labels}, features)

    return datasets.DatasetDict(train=split(60), test=split(20))


def net(encoding, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes))
"""


def test_own_code_is_found_in_the_current_folder(tmp_path: Path) -> None:
    """By a build, its workers, and a job; a folder named like one of ours changes nothing."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "own_code.py").write_text(OWN_CODE)
    study = Study.create(
        tmp_path / "study",
        'name = "own"\n[data]\nsource = "python:own_code:data"\n'
        '[algorithms.own]\narchitecture = "python:own_code:net"\nepochs = 1\ncheckpoints = 1\n',
    )
    try:
        strange = run("build", study.root, "--workers", 1, cwd=tmp_path)
        assert (strange.returncode, strange.stderr.count("\n")) == (2, 1)
        assert f"run: dataloupe trust {study.root}" in strange.stderr
        Study.open(study.root, trust=True)
        elsewhere = run("build", study.root, "--workers", 1, cwd=tmp_path / "engine")
        assert elsewhere.returncode == 2
        assert "own_code" in elsewhere.stderr
        queue.submit(study, "build", {"workers": 1})  # from here, where it is not found either
        assert run("jobs", study.root, "--wait", 1, cwd=tmp_path).returncode == 2
        end_everything(study.root)  # with the runner, which keeps the path it was started with
        assert run("jobs", study.root, "--retry", 1, cwd=tmp_path).returncode == 0
        waited = run("jobs", study.root, "--wait", 2, cwd=tmp_path)
        assert (waited.returncode, waited.stderr) == (0, "")
        again = run("build", study.root, "--workers", 1, "--rebuild", "live", cwd=tmp_path)
        assert (again.returncode, again.stderr) == (0, "")
    finally:
        end_everything(study.root)
