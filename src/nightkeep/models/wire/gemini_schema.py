"""Gemini's OpenAPI-like ``Schema`` and JSON Schema, each as the other.

Gemini takes both: ``Schema`` in ``parameters`` and ``responseSchema``, JSON Schema in ``parametersJsonSchema``
and ``responseJsonSchema``. What ``Schema`` cannot say is sent as JSON Schema, unchanged.
Source: ai.google.dev/api/caching#Schema; ``google.genai.types.Schema``.
"""

from __future__ import annotations

from typing import Any

__all__ = ["to_gemini_schema", "to_json_schema"]

Schema = dict[str, Any]

_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_SAME = ("description", "title", "default", "enum", "pattern", "minimum", "maximum", "required")
_SNAKE = {
    "any_of": "anyOf",
    "min_items": "minItems",
    "max_items": "maxItems",
    "min_length": "minLength",
    "max_length": "maxLength",
    "min_properties": "minProperties",
    "max_properties": "maxProperties",
    "property_ordering": "propertyOrdering",
    "additional_properties": "additionalProperties",
}


def to_json_schema(schema: Schema) -> Schema:
    """A Gemini ``Schema`` as JSON Schema; ``nullable`` becomes a type, ``propertyOrdering`` the order itself.

    Raises:
        ValueError: it is no schema: something in it has the wrong type.
    """
    try:
        return _json_schema(schema)
    except (AttributeError, TypeError) as error:
        raise ValueError(f"not a schema: {error}") from error


def _json_schema(schema: Schema) -> Schema:
    given = {_SNAKE.get(name, name): value for name, value in schema.items() if value is not None}
    out: Schema = {}
    if isinstance(kind := given.get("type"), str):
        lower = kind.lower()
        if lower != "type_unspecified":
            out["type"] = [lower, "null"] if given.get("nullable") and lower != "null" else lower
    out |= {name: given[name] for name in _SAME if name in given}
    out |= {name: int(given[name]) for name in _COUNTS if name in given}
    if given.get("format") not in (None, "enum"):
        out["format"] = given["format"]
    if "example" in given:
        out["examples"] = [given["example"]]
    if isinstance(properties := given.get("properties"), dict):
        order = [name for name in given.get("propertyOrdering") or () if name in properties]
        names = [*order, *(name for name in properties if name not in order)]
        out["properties"] = {name: _json_schema(properties[name]) for name in names}
    if isinstance(items := given.get("items"), dict):
        out["items"] = _json_schema(items)
    if isinstance(choices := given.get("anyOf"), list):
        out["anyOf"] = [_json_schema(choice) for choice in choices]
        if given.get("nullable") and "type" not in out:
            out["anyOf"].append({"type": "null"})
    if "additionalProperties" in given:
        extra = given["additionalProperties"]
        out["additionalProperties"] = _json_schema(extra) if isinstance(extra, dict) else extra
    return out


_SAYABLE = {"type", "format", "properties", "items", "anyOf", "examples", "$schema", *_SAME, *_COUNTS}
_FORMATS = {
    "string": {"enum", "date-time"},
    "number": {"float", "double"},
    "integer": {"int32", "int64"},
}


def to_gemini_schema(schema: Schema) -> Schema | None:
    """JSON Schema as a Gemini ``Schema``; None where ``Schema`` cannot say it, or where it is no schema at all."""
    try:
        return _gemini_schema(schema)
    except (AttributeError, TypeError):
        return None


def _gemini_schema(schema: Schema) -> Schema | None:
    if not schema.keys() <= _SAYABLE:
        return None
    kind, is_nullable = _single_type(schema.get("type"))
    if kind is None and "anyOf" not in schema:
        return None
    if any(not isinstance(value, str) for value in schema.get("enum") or ()):
        return None
    if "format" in schema and schema["format"] not in _FORMATS.get(kind or "", ()):
        return None
    out: Schema = {"type": kind.upper()} if kind else {}
    if is_nullable:
        out["nullable"] = True
    out |= {name: schema[name] for name in (*_SAME, *_COUNTS, "format") if name in schema}
    if schema.get("examples"):
        out["example"] = schema["examples"][0]
    return _with_children(out, schema)


def _single_type(kind: object) -> tuple[str | None, bool]:
    if isinstance(kind, str):
        return kind, False
    if isinstance(kind, list) and len(kind) == 2 and "null" in kind:
        return str(next(item for item in kind if item != "null")), True
    return None, False


def _with_children(out: Schema, schema: Schema) -> Schema | None:
    if "properties" in schema:
        children = {name: _gemini_schema(child) for name, child in schema["properties"].items()}
        if None in children.values():
            return None
        out["properties"] = children
    if "items" in schema:
        out["items"] = _gemini_schema(schema["items"]) if isinstance(schema["items"], dict) else None
        if out["items"] is None:
            return None
    if "anyOf" in schema:
        out["anyOf"] = [to_gemini_schema(choice) for choice in schema["anyOf"]]
        if None in out["anyOf"]:
            return None
    return out
