"""Completion in a real bash, and one source of the version."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

import engine
from engine.cli.main import main

ROOT = Path(__file__).parents[2]


def script_for(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script_that_knows_the_verbs(shell: str, capsys) -> None:
    script = script_for(shell, capsys)
    for word in ("brittle", "whatif", "traker"):
        assert word in script


def completed_by_bash(script: Path, line: str) -> set[str]:
    """What bash offers for the last word of `line`."""
    script_ = (
        f"source {script}; COMP_WORDS=({line}); "
        f"COMP_CWORD={line.count(' ')}; "
        "_shtab_dataloupe dataloupe; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "-c", script_], capture_output=True, text=True, check=True, cwd=script.parent
    )
    return {word.strip() for word in done.stdout.splitlines()}


def test_bash_completes_verbs_options_choices_and_paths(tmp_path: Path, capsys) -> None:
    script = tmp_path / "completion.sh"
    script.write_text(script_for("bash", capsys))
    (tmp_path / "my-study").mkdir()
    assert {"brittle", "build"} <= completed_by_bash(script, "dataloupe b")
    assert "--template" in completed_by_bash(script, "dataloupe init --t")
    assert "cpu" in completed_by_bash(script, "dataloupe build --device c")
    assert "my-study" in completed_by_bash(script, "dataloupe build my")


def test_the_version_has_one_source(capsys) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "engine.__version__"}
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"dataloupe {engine.__version__}\n"
