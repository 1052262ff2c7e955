"""The OpenAPI document, made from the table of views."""

from __future__ import annotations

import functools
from typing import Any

import engine
from dashboard.api.answer import JSON, NDJSON, adapter_of
from dashboard.api.table import PICTURE, VIEWS, Parameter, View, title_of

REFERENCE = "#/components/schemas/{model}"
ERRORS = {
    "400": "A parameter is missing, unknown or not valid.",
    "404": "The study does not have it, or it is not built yet; the error says what makes it.",
    "401": "A login is configured, and nobody is signed in.",
}


@functools.cache
def openapi() -> dict[str, Any]:
    """The document, in version 3.1. Shared: do not modify."""
    schemas: dict[str, Any] = {}
    paths = {f"/{view.name}": {"get": _operation(view, schemas)} for view in VIEWS}
    paths["/picture"] = {"get": _picture()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Dataloupe",
            "version": engine.__version__,
            "summary": "Every page of a study's dashboard as JSON. It only reads.",
            "description": "Numbers are objects: `value` is unrounded, `text` is what pages write, "
            "`unit` and `method` say what it is. Parameters are those of the pages' addresses.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": ".", "description": "This server, below /api"}],
        "paths": paths,
        "components": {"schemas": {**schemas, "Error": _ERROR}},
    }


_ERROR = {
    "type": "object",
    "description": "What every refusal holds.",
    "properties": {"error": {"type": "string", "description": "What is wrong, in one line."}},
    "required": ["error"],
}


def _operation(view: View, schemas: dict[str, Any]) -> dict[str, Any]:
    answer = _schema(view.content, schemas)
    content: dict[str, Any] = {JSON: {"schema": answer}}
    if view.long:
        entry = schemas[view.content.__name__]["properties"][view.long]["items"]
        content[NDJSON] = {
            "schema": entry,
            "x-first-line": f"{view.content.__name__} without `{view.long}`",
        }
    return {
        "operationId": view.name,
        "summary": view.what,
        "description": f"What the page {title_of(view)} shows.",
        "parameters": [_parameter(one) for one in view.parameters],
        "responses": {"200": {"description": view.what, "content": content}, **_errors()},
    }


def _picture() -> dict[str, Any]:
    content = {"image/png": {}, "text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "picture",
        "summary": "The thumbnail of a picture as PNG, or the text of a text example.",
        "parameters": [_parameter(one) for one in PICTURE],
        "responses": {"200": {"description": "The example", "content": content}, **_errors()},
    }


def _errors() -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(model="Error")}
    return {
        status: {"description": words, "content": {JSON: {"schema": schema}}}
        for status, words in ERRORS.items()
    }


def _parameter(one: Parameter) -> dict[str, Any]:
    schema = schema_of(one)
    found: dict[str, Any] = {
        "name": one.name,
        "in": "query",
        "description": one.what,
        "schema": schema,
    }
    if one.required:
        found["required"] = True
    if one.example:
        found["example"] = int(one.example) if one.kind != "string" else one.example
    return found


def schema_of(one: Parameter) -> dict[str, Any]:
    """JSON schema of a parameter's values."""
    schema: dict[str, Any] = {"type": "string"}
    if one.kind == "integer":
        schema = {"type": "integer", "minimum": 0 if one.name == "row" else 1}
    elif one.kind == "page":
        schema = {"anyOf": [{"type": "integer", "minimum": 1}, {"const": "all"}]}
    if one.options:
        schema["enum"] = list(one.options)
    return schema


def _schema(kind: type, schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of a dataclass, which is added with all that it holds."""
    found = adapter_of(kind).json_schema(mode="serialization", ref_template=REFERENCE)
    for name, schema in found.pop("$defs", {}).items():
        known = schemas.setdefault(name, schema)
        assert known == schema, f"two answers have a part named {name}"
    schemas.setdefault(kind.__name__, found)
    return {"$ref": REFERENCE.format(model=kind.__name__)}
