"""What a setting may be, in words, from what its model says of it: pydantic's own messages are for programmers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

NAMES = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}
SEVERAL = {"integer": "whole numbers", "number": "numbers", "string": "names"}


def wanted(model: type[BaseModel], key: str) -> str:
    """Values that a model takes for a key.

    >>> from iscale.config import Options
    >>> wanted(Options, "n_clusters"), wanted(Options, "n_genes"), wanted(Options, "pixel_size")
    ('whole numbers from 2 to 100', 'a whole number of 1 or more', 'a number from 0.05 to 20')
    >>> wanted(Options, "shifts"), wanted(Options, "recipe")
    ('16, 4 or 1', 'default or published')
    """
    return _described(_schema(model)["properties"][key])


@lru_cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _described(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_described(part) for part in schema["anyOf"] if part.get("type") != "null"))
    if "wanted" in schema:
        return str(schema["wanted"])
    if "enum" in schema:
        return listed([str(value) for value in schema["enum"]])
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "")
    if kind == "array":
        return f"{SEVERAL.get(schema['items'].get('type'), 'values')}{_range(schema['items'])}"
    if kind == "object":
        return "a table of keys and values"
    if schema.get("format") == "path":
        return "a path, as text"
    return f"{NAMES.get(kind, 'a value')}{_range(schema)}"


def _range(schema: Mapping[str, Any]) -> str:
    low, high, below = (schema.get(key) for key in ("minimum", "maximum", "exclusiveMaximum"))
    if below is not None and schema.get("type") == "integer":
        high = int(below) - 1
    if (above := schema.get("exclusiveMinimum")) is not None:
        return f" above {above:g}" + (f", at most {high:g}" if high is not None else "")
    if low is None:
        return ""
    return f" from {low:g} to {high:,.10g}" if high is not None else f" of {low:g} or more"


def listed(values: list[str]) -> str:
    """Values as a choice.

    >>> listed(["a", "b", "c"])
    'a, b or c'
    """
    *first, last = values
    return f"{', '.join(first)} or {last}" if first else last
