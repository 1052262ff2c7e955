"""An assistant asks `dataloupe mcp` with the official client: the same answers, and pictures."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from dashboard.api.mcp_server import EACH_SIDE, LEFT_OUT, server
from dashboard.api.reading import BY_NAME, answer_of
from engine import Study
from engine.cli.main import main
from tests.builders.copies import copy_of
from tests.builders.studies_that_name_code import WAYS, Planted
from tests.builders.synthetic_study import write_study


def ask(to: Any, talk: Callable[[Client], Awaitable[Any]]) -> Any:
    """Talk with a server, in this process or another."""

    async def session() -> Any:
        async with Client(to) as client:
            return await talk(client)

    with ThreadPoolExecutor(1) as pool:  # the browser's tests leave a loop in this thread
        return pool.submit(anyio.run, session).result()


def call(root: Path, tool: str, **arguments: Any) -> Any:
    return ask(server(root), lambda client: client.call_tool(tool, arguments))


def wrong_row(study: Study) -> int:
    return int((~study.predictions("test")["correct"].astype(bool)).to_numpy().nonzero()[0][0])


def test_why_is_this_prediction_wrong(small_study: Study) -> None:
    row = wrong_row(small_study)
    found = call(small_study.root, "explain", test=f"#{row}", k=6)
    assert not found.is_error
    answer, *pictures = found.content
    told = json.loads(answer.text)
    expected = answer_of(small_study.root, BY_NAME["explain"], {"test": f"#{row}", "k": "6"})
    assert told == json.loads(expected.to_json())
    assert told["example"]["correct"] is False
    explained = small_study.explain(row, 6)
    for side in ("supporting", "opposing"):
        theirs = [(one.id, one.score) for one in getattr(explained, side)]
        assert [(one["id"], one["score"]["value"]) for one in told[side]] == theirs
    assert told["trust"]["text"] == str(explained.badge)
    words = [one.text for one in pictures if one.type == "text"]
    images = [one for one in pictures if one.type == "image"]
    assert len(words) == len(images) == 1 + 2 * EACH_SIDE
    first = explained.opposing[0]
    assert f"opposing 1: train example {first.id}, labeled {first.label}" in words
    for image in images:
        assert image.mime_type == "image/png"
        assert base64.b64decode(image.data).startswith(b"\x89PNG")


def test_every_view_is_a_tool_that_only_reads(small_study: Study, text_study: Study) -> None:
    tools = ask(server(small_study.root), lambda client: client.list_tools()).tools
    names = {name.replace("-", "_") for name in BY_NAME if name not in LEFT_OUT}
    assert {tool.name for tool in tools} == {*names, "picture"}
    for tool in tools:
        assert tool.annotations.read_only_hint
        assert tool.description
        assert all(one["description"] for one in tool.input_schema["properties"].values())
        assert "format" not in tool.input_schema["properties"]

    async def each(client: Client) -> dict[str, Any]:
        asked = {"explain": {"test": "#1"}, "training": {"train": "#1"}}
        asked |= {"what_if": {"remove": "#1,#2", "k": 2}, "picture": {"row": 1}}
        return {
            tool.name: await client.call_tool(tool.name, asked.get(tool.name)) for tool in tools
        }

    found = ask(server(text_study.root), each)
    for name, answer in found.items():
        assert answer.is_error == (name in ("compare", "quality")), name
        assert all(one.type == "text" for one in answer.content)
    assert len(json.loads(found["test_set"].content[0].text)["examples"]) == 20


REFUSED = {
    "an example that is not there": ("explain", {"test": "test-99999"}, "Did you mean"),
    "no example": ("explain", {}, "Give `test`"),
    "a misspelled argument": ("test_set", {"lable": "Coat"}, "Did you mean 'label'"),
    "a list": ("what_if", {"remove": ["#1"]}, "a text or a number"),
    "everything": ("test_set", {"page": "all"}, "a number"),
    "a tool that there is not": ("explian", {}, "There is no tool 'explian'"),
    "the map": ("map", {}, "There is no tool 'map'"),
    "a file": ("what_if", {"remove": "/etc/passwd"}, "/etc/passwd"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_told_the_assistant_in_one_line(small_study: Study, case: str) -> None:
    tool, arguments, words = REFUSED[case]
    found = call(small_study.root, tool, **arguments)
    assert found.is_error
    (text,) = found.content
    assert words in text.text
    assert "\n" not in text.text


def test_what_is_not_built_names_the_command(tmp_path: Path) -> None:
    found = call(write_study(tmp_path / "study", stage="data").root, "explain", test="#1")
    assert found.is_error
    assert "`dataloupe build" in found.content[0].text


def test_it_runs_no_code_of_a_study_and_answers_from_any_folder(
    small_study: Study, tmp_path: Path
) -> None:
    """The command line, standard input and output, in a folder with modules that shadow others."""
    at = Planted(copy_of(small_study, tmp_path / "sent").root, tmp_path / "ran")
    WAYS["a module in the study"](at)
    WAYS["modules that shadow installed ones"](at)
    program = "import sys; from engine.cli.main import main; sys.exit(main())"
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-P", "-c", program, "mcp", str(at.root)],
        cwd=at.root,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )

    async def talk(client: Client) -> Any:
        return [
            await client.call_tool(tool, arguments)
            for tool, arguments in (
                ("overview", {}),
                ("explain", {"test": "#1", "k": 2}),
                ("what_if", {"remove": "#1"}),
                ("provenance", {}),
            )
        ]

    answers = ask(parameters, talk)
    assert not any(answer.is_error for answer in answers), answers
    assert any(one.type == "image" for one in answers[1].content)
    assert not at.marker.exists()


def test_what_is_missing_is_one_line(
    complete_study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    for version, words in (
        (missing, "pip install 'dataloupe[mcp]'"),
        (lambda _: "1.26.0", "too old"),
    ):
        monkeypatch.setattr("engine.running.launch.version", version)
        assert main(["mcp", str(complete_study.root)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert main(["mcp", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
