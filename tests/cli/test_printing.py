"""Text is printed as it is, and tables in a pipe or a file cut nothing."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.text import Text

from engine import Study
from engine.cli.brittle import _print_brittle
from engine.cli.main import main
from engine.cli.printing import console, table
from engine.cli.progress import BuildProgress, job_progress
from engine.running.jobs import queue
from tests.builders.synthetic_study import write_study

TRICKY = (
    "set [subset_runs] in study.toml",
    "[bold]not bold[/bold]",
    "[/closes nothing]",
    ":memo: is no emoji",
    "ends in a backslash\\",
)
LONG = "-" + "x" * 150 + "-end"
"""What the ids of a study end in: wider than any terminal."""


def show_table(text: str) -> None:
    shown = table("head " + text, caption="caption " + text, title="title " + text)
    shown.add_row(text)
    console().print(shown)


def show_job(text: str) -> None:
    with job_progress(text) as report:
        report(1, 2, text)


def show_build(study: Study, text: str) -> None:
    with BuildProgress(study) as progress:
        progress.say(text)


WAYS: dict[str, Callable[[Study, str], None]] = {
    "sentence": lambda study, text: console().print(text),
    "styled": lambda study, text: console().print(Text.assemble((text, "bold"))),
    "table": lambda study, text: show_table(text),
    "job": lambda study, text: show_job(text),
    "build": show_build,
}


class Terminal(io.StringIO):
    """Standard output as a terminal has it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("text", TRICKY)
def test_text_is_printed_as_it_is(
    text: str, way: str, terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path / "study", stage="spec")
    output = Terminal() if terminal else io.StringIO()
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stdout", output)
    WAYS[way](study, text)
    assert text in output.getvalue()


def test_only_one_file_makes_consoles_and_tables() -> None:
    """What goes around it would read markup, and cut."""
    for path in Path("engine/cli").glob("*.py"):
        called = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert path.name == "printing.py" or not called & {"Console", "Table"}, path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    root = tmp_path_factory.mktemp("printing") / "study"
    return write_study(root, files=(f"[b]{LONG}",), classes=("Bag[0]", "Coat[/]"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "--test", f"test-3[b]{LONG}"],
        ["whatif", "--remove", f"train-3[b]{LONG}"],
        ["methods"],
    ],
)
def test_verbs_cut_nothing_and_read_no_markup(
    arguments: list[str], study: Study, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    verb, *others = arguments
    assert main([verb, str(study.root), *others]) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    if verb in ("explain", "whatif"):
        assert f"[b]{LONG}" in out
        assert "Bag[0]" in out
        assert "Coat[/]" in out
    if verb == "whatif":
        assert "[subset_runs]" in out


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_list_of_brittle_predictions_cuts_nothing(
    calibrated: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"label": "Bag[0]", "predicted": "Coat[/]", "other": "Bag[0]", "support": 3}
    row |= {"id": f"[b]{LONG}", "status": "predicted", "flip_rate": None, "data_issues": ["label"]}
    row |= {"flip_probability": 0.83}
    supports = SimpleNamespace(
        calibrated=calibrated, method="[mine]", logit_gap=[0.5], at_most=20, probability=0.8
    )
    _print_brittle(console(), supports, [row], "Add [subset_runs].")  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert f"[b]{LONG}" in out
    assert "Coat[/]" in out
    assert calibrated or ("[mine]" in out and "[subset_runs]" in out)


def test_the_list_of_jobs_cuts_nothing(
    idle_study: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "start_runner", lambda study: None)
    title = "[b]" + "x" * 110
    queue.submit(idle_study, "count", {}, title)
    assert main(["jobs", str(idle_study.root)]) == 0
    assert title in capsys.readouterr().out


def test_a_narrow_terminal_folds_and_never_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Terminal()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout", output)
    shown = table("id", "label")
    shown.add_row("train-" + "0123456789" * 8, "Bag")
    console().print(shown)
    lines = re.sub("\x1b\\[[0-9;]*m", "", output.getvalue()).splitlines()
    assert max(map(len, lines)) <= 40
    cells = "".join(line.split("│")[1].strip() for line in lines if "│" in line)
    assert cells == "train-" + "0123456789" * 8
