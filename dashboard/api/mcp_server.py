"""The same answers for an assistant: a server of the Model Context Protocol, on standard input and
output. `dataloupe mcp STUDY` starts it as `python -m dashboard.api.mcp_server STUDY`.

Its tools are the views of the table, with the same parameters and the same answers, and pictures of
the examples. It only reads, and runs no code of the study.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

import engine
from dashboard.api.openapi import schema_of
from dashboard.api.reading import BY_NAME, answer_of, picture_of
from dashboard.api.table import PICTURE, Parameter, View
from dashboard.api.threads import Threads
from dashboard.api.views.picture import PNG
from engine.store.errors import DataloupeError
from engine.study.reader import StudyReader

LEFT_OUT = {
    "map": "all examples at once, which no assistant can use",
}
"""Views that are no tools, with the reason."""
PER_PAGE = 20
"""Entries of a list, unless the assistant asks for more."""
EACH_SIDE = 4
"""Pictures of each side of an explanation."""
SIDES = {
    "explain": ("supporting", "opposing"),
    "training": ("helps", "hurts"),
}
"""Views that show pictures → lists of examples, the strongest first."""
INSTRUCTIONS = (
    "These tools attribute the predictions of a model to its training data. To say why a "
    "prediction is wrong, call `explain` with its id: opposing training examples pulled the model "
    "away from the true label, supporting ones toward it. Say how far the scores can be trusted "
    "(`trust`: LDS with its interval, calibrated or not) beside every claim. A score has no unit; "
    "an influence is in the unit of the model output. `what_if` predicts a removal; only "
    "retraining proves it."
)
_UNEXPECTED = "An unexpected error occurred; details are in the log of the server."
_LOG = logging.getLogger(__name__)


def server(root: Path) -> Server[Any]:
    """The server of a study.

    Raises:
        DataloupeError: The folder is not a study.
    """
    study = StudyReader.open(root)
    threads = Threads()

    async def list_tools(_: Any, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=list(_tools()))

    async def call_tool(_: Any, asked: types.CallToolRequestParams) -> types.CallToolResult:
        given = {
            name: value for name, value in (asked.arguments or {}).items() if value is not None
        }
        try:
            found = await threads.run(lambda: list(_contents(root, asked.name, given)))
        except DataloupeError as error:
            return _refusal(str(error))
        except Exception:
            _LOG.exception("The tool %r failed", asked.name)
            return _refusal(_UNEXPECTED)
        return types.CallToolResult(content=found)

    return Server(
        "dataloupe",
        version=engine.__version__,
        title=f"Dataloupe: {study.spec.name}",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def tool_name(view: View) -> str:
    """Name of a view's tool."""
    return view.name.replace("-", "_")


def _tools() -> Iterator[types.Tool]:
    for view in BY_NAME.values():
        if view.name not in LEFT_OUT:
            taken = tuple(one for one in view.parameters if one.name != "format")
            yield _tool(tool_name(view), view.what, taken)
    yield _tool("picture", "The picture or the text of one example.", PICTURE)


def _tool(name: str, what: str, parameters: tuple[Parameter, ...]) -> types.Tool:
    schema = {
        "type": "object",
        "properties": {one.name: _schema(one) for one in parameters},
        "required": [one.name for one in parameters if one.required],
        "additionalProperties": False,
    }
    reads = types.ToolAnnotations(
        read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    return types.Tool(name=name, description=what, input_schema=schema, annotations=reads)


def _schema(one: Parameter) -> dict[str, Any]:
    if one.kind == "page":
        return {"type": "integer", "minimum": 1, "description": "Which part of the list, from 1."}
    return {**schema_of(one), "description": one.what}


def _contents(root: Path, tool: str, given: dict[str, Any]) -> Iterator[types.ContentBlock]:
    """What a tool gives: the answer as JSON, then pictures of its examples.

    Raises:
        DataloupeError: As `answer_of`, or there is no such tool.
    """
    asked = {name: _text(name, value) for name, value in given.items()}
    if tool == "picture":
        yield _shown(root, asked)
        return
    view = BY_NAME.get(tool.replace("_", "-"))
    if view is None or view.name in LEFT_OUT:
        names = ", ".join(one.name for one in _tools())
        raise DataloupeError(f"There is no tool {tool[:60]!r}; there are {names}.")
    if asked.get("page") == "all":
        raise DataloupeError("page must be a number from 1.")
    if any(one.name == "per_page" for one in view.parameters):
        asked.setdefault("per_page", str(PER_PAGE))
    text = answer_of(root, view, asked).to_json().decode()
    yield types.TextContent(type="text", text=text)
    if view.name in SIDES:
        yield from _pictures(root, json.loads(text), SIDES[view.name])


def _pictures(
    root: Path, answer: dict[str, Any], sides: tuple[str, ...]
) -> Iterator[types.ContentBlock]:
    """The picture of the example that an answer is about, then those of each side."""
    listed = [("", answer["example"])]
    for side in sides:
        listed += [(f"{side} {n}: ", one) for n, one in enumerate(answer[side][:EACH_SIDE], 1)]
    for words, one in listed:
        if one["picture"] is not None:
            what = f"{words}{one['split']} example {one['id']}, labeled {one['label']}"
            yield types.TextContent(type="text", text=what)
            yield _shown(root, {"split": one["split"], "row": str(one["row"])})


def _shown(root: Path, given: dict[str, str]) -> types.ContentBlock:
    found = picture_of(root, given)
    if found.media_type != PNG:
        return types.TextContent(type="text", text=found.content.decode())
    data = base64.b64encode(found.content).decode()
    return types.ImageContent(type="image", data=data, mime_type=PNG)


def _text(name: str, value: Any) -> str:
    """An argument as an address has it. Raises DataloupeError for a list or an object."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataloupeError(f"{name[:60]} must be a text or a number.")
    return value if isinstance(value, str) else f"{value:g}" if value % 1 else str(int(value))


def _refusal(words: str) -> types.CallToolResult:
    line = " ".join(words.split())
    return types.CallToolResult(content=[types.TextContent(type="text", text=line)], is_error=True)


async def serve(root: Path) -> None:
    """Answer on standard input and output until the other end closes it."""
    made = server(root)
    async with stdio_server() as (read, write):
        await made.run(read, write, made.create_initialization_options())


def main() -> None:
    """Serve the study that the command line names."""
    try:
        anyio.run(serve, Path(sys.argv[1]))
    except DataloupeError as error:
        print(f"dataloupe: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
