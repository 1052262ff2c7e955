"""The documentation is true: its commands run, and the files that it names exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine import Study
from engine.applications.unlearning import settings_search
from engine.applications.unlearning.settings import GRIDS
from engine.cli.main import main
from engine.running import launch
from tests.builders.documented_files import SPEC, write_documented_files
from tests.builders.job_processes import end_everything

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
AT_THE_ROOT = sorted(ROOT.glob("*.md"))
RUN = ("sh", "python")
SHOWN = ("text", "toml", "yaml")
"""Blocks that nobody runs. A language that is in neither may not be used."""
NOT_RUN = re.compile(r"<!-- not run: (\S.*) -->\n\Z")
FILE = re.compile(r"`((?:\.ci|assets|benchmarks|dashboard|docs|engine|tests)/[\w./-]*)`")
ANY_FILE = re.compile(r"`([\w./-]+(?:/|\.\w+))`")

PROGRAM = f"{sys.executable} -c 'import sys; from engine.cli.main import main; sys.exit(main())'"


@dataclass(frozen=True)
class Block:
    """One fenced block of code.

    Attributes:
        line: Of its first line of code, in the page.
        language: What stands behind the opening fence.
        not_run: The reason why it is not run, or None.
    """

    line: int
    language: str
    code: str
    not_run: str | None


def blocks_of(text: str) -> Iterator[Block]:
    for found in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        before = text[: found.start()]
        mark = NOT_RUN.search(before)
        line = before.count("\n") + 2
        yield Block(line, found[1], found[2], mark and mark[1])


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# --- what the pages say is so --------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_run_or_shown_or_says_why_not(page: Path) -> None:
    for block in blocks_of(page.read_text()):
        assert block.language in RUN + SHOWN, (
            f"{name_of(page)}:{block.line}: a block of {block.language or 'no language'!r} is "
            f"neither run ({', '.join(RUN)}) nor only shown ({', '.join(SHOWN)})"
        )


def test_a_mark_needs_a_reason_and_stands_right_before_its_block() -> None:
    (block,) = blocks_of("<!-- not run: serves -->\n```sh\nx\n```\n")
    assert block == Block(3, "sh", "x\n", "serves")
    for text in ("<!-- not run: -->\n```sh\nx\n```\n", "<!-- not run: a -->\n\n```sh\nx\n```\n"):
        (block,) = blocks_of(text)
        assert block.not_run is None


@pytest.mark.parametrize("page", sorted({*PAGES, *AT_THE_ROOT}), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", sorted({*PAGES, *AT_THE_ROOT}), ids=name_of)
def test_files_of_the_project_that_it_names_exist(page: Path) -> None:
    for name in FILE.findall(page.read_text()):
        assert (ROOT / name).exists(), f"{name_of(page)} names {name}"


def test_contributing_names_one_file_a_question_and_all_of_them_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    questions = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(questions) >= 10
    for line in questions:
        question, where, _ = line.strip("|").split("|")
        assert ANY_FILE.search(where), f"{question.strip()!r} names no file"
    for name in ANY_FILE.findall(text):
        assert (ROOT / name).exists(), f"CONTRIBUTING.md names {name}"


# --- what the pages tell to do works -------------------------------------------------------------


@pytest.fixture(scope="module")
def documented_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study.create(tmp_path_factory.mktemp("documented") / "study", SPEC)
    study.build(workers=0)
    return study


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Servers start and answer; `dataloupe serve` then ends as if Ctrl-C was pressed."""
    start = launch._start

    def started(*arguments: Any) -> Any:
        child, url = start(*arguments)
        wait = child.wait
        monkeypatch.setattr(
            child, "wait", lambda timeout=None: 0 if timeout is None else wait(timeout)
        )
        return child, url

    monkeypatch.setattr(launch, "_start", started)
    monkeypatch.setattr("webbrowser.open", lambda url: True)
    yield
    while launch._children:
        launch._stop(launch._children.pop())


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a command names --workers, it starts none: each would import everything again."""
    for module in ("running.processes", "build.build", "applications.modeldiff.job"):
        monkeypatch.setattr(f"engine.{module}.default_workers", lambda device: 0)


@pytest.fixture
def few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods of unlearning try two settings each, and not up to 25."""
    few = {method: grid[:2] for method, grid in GRIDS.items()}
    monkeypatch.setattr(settings_search, "GRIDS", few)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(blocks_of(page.read_text()))], ids=name_of
)
def test_what_it_tells_to_do_works(
    page: Path,
    documented_study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    serving: None,
    in_this_process: None,
    few_settings: None,
) -> None:
    text = page.read_text()
    blocks = [block for block in blocks_of(text) if block.language in RUN and not block.not_run]
    if not blocks:
        return
    write_documented_files(
        documented_study, tmp_path, with_study="dataloupe init my-study" not in text
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    names: dict[str, object] = {}
    try:
        for block in blocks:
            where = f"{name_of(page)}:{block.line}"
            if block.language == "python":
                code = "\n" * (block.line - 1) + block.code
                exec(compile(code, str(page), "exec"), names)
            else:
                run_commands(block.code, where, tmp_path)
    finally:
        for folder in tmp_path.glob("*/study.toml"):
            end_everything(folder.parent)


def run_commands(commands: str, where: str, folder: Path) -> None:
    """Run each line: `dataloupe` in this process, which is quicker, anything else by bash."""
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "dataloupe" and not set(words) & {">", "|", "&&"}:
            try:
                code = main(words[1:])
            except SystemExit as ended:
                code = ended.code
        else:
            program = f'dataloupe() {{ {PROGRAM} "$@"; }}\n{line}'
            environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT)}
            code = subprocess.run(
                ["bash", "-ec", program], cwd=folder, env=environment, check=False
            ).returncode
        assert code == 0, f"{where}: {line}"
