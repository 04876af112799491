"""Make up a value that fits a JSON schema: arguments of a tool, structured output. Deterministic.

Not a validator; it knows the part of JSON Schema that tool definitions use.
"""

from __future__ import annotations

from typing import Any

__all__ = ["sample"]

_DEPTH = 6
_STRINGS = {"date": "2026-01-01", "date-time": "2026-01-01T00:00:00Z", "email": "sim@example.com", "uuid": "0" * 8}


def sample(schema: Any, depth: int = 0, root: Any = None) -> Any:
    """Return the plainest value that ``schema`` allows; required properties only."""
    if not isinstance(schema, dict) or depth > _DEPTH:
        return "simulated"
    root = schema if root is None else root
    schema = _resolved(schema, root)
    for name in ("const", "default", "example"):
        if name in schema:
            return schema[name]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return sample(schema[name][0], depth + 1, root)
    return _by_type(schema, depth, root)


def _resolved(schema: dict[str, Any], root: Any) -> dict[str, Any]:
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return schema
    found: Any = root
    for step in reference[2:].split("/"):
        found = found.get(step) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _by_type(schema: dict[str, Any], depth: int, root: Any) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0] if kind else "string"
    match str(kind).lower():
        case "object":
            properties = schema.get("properties") or {}
            required = schema.get("required", list(properties))
            return {name: sample(properties.get(name), depth + 1, root) for name in required}
        case "array":
            return [sample(schema.get("items"), depth + 1, root) for _ in range(max(1, schema.get("minItems") or 1))]
        case "integer":
            return int(schema.get("minimum") or 1)
        case "number":
            return float(schema.get("minimum") or 1)
        case "boolean":
            return True
        case "null":
            return None
    return _STRINGS.get(str(schema.get("format")), "simulated")
