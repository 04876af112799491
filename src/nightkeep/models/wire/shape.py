"""Reading a request's JSON object field by field: types are checked, what nobody took is kept.

Not a validator of vendors' schemas: only what we must understand is checked, and a wrong shape is
named by its path (``messages.2.content.0.text``). What is left over becomes ``ChatRequest.foreign``
(``collect_rest``), so that an unknown field is never dropped; ``write_foreign`` puts it back where it stood.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec

from nightkeep.core.errors import RequestError

__all__ = ["Fields", "decode_object", "encode_json", "json_object_text", "write_foreign"]

encode_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode
_CAMEL = re.compile(r"(?<=[a-z0-9])([A-Z])")


def decode_object(body: bytes) -> dict[str, Any]:
    """Decode a request's body. Raises RequestError where it is not a JSON object."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise RequestError("the request body must be a JSON object")
    return value


def json_object_text(value: Any) -> str:
    """A decoded JSON value as text again."""
    return encode_json(value).decode()


class Fields:
    """The fields of one JSON object, each taken once. camelCase names are found in snake_case too (Gemini)."""

    __slots__ = ("_left", "path")

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, dict):
            raise _wrong(path, "an object", value)
        self._left: dict[str, Any] = dict(value)
        self.path = path

    def at(self, name: str | int) -> str:
        """The path of a field of this object."""
        return f"{self.path}.{name}" if self.path else str(name)

    def take(self, name: str) -> Any:
        """The field's value, unchecked; None where it is missing or null."""
        value = self._left.pop(name, None)
        if value is None:
            value = self._left.pop(_CAMEL.sub(lambda match: "_" + match[1].lower(), name), None)
        return value

    def text(self, name: str) -> str | None:
        """A string, or None where it is missing."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise _wrong(self.at(name), "a string", value)
        return value

    def required_text(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if value is None:
            raise RequestError(f"{self.at(name)}: this field is required", parameter=self.at(name))
        return value

    def integer(self, name: str) -> int | None:
        """A whole number (``10.0`` counts as one), or None."""
        value = self.take(name)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise _wrong(self.at(name), "an integer", value)
        return value

    def number(self, name: str) -> float | None:
        """A number, or None."""
        value = self.take(name)
        if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise _wrong(self.at(name), "a number", value)
        return value

    def flag(self, name: str) -> bool | None:
        """A boolean, or None."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise _wrong(self.at(name), "a boolean", value)
        return value

    def array(self, name: str) -> list[Any]:
        """An array; empty where it is missing."""
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise _wrong(self.at(name), "an array", value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """An array of strings; empty where it is missing."""
        values = self.array(name)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                raise _wrong(f"{self.at(name)}.{index}", "a string", value)
        return tuple(values)

    def object(self, name: str) -> dict[str, Any] | None:
        """An object, or None."""
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            raise _wrong(self.at(name), "an object", value)
        return value

    def inner(self, name: str) -> Fields | None:
        """An object as ``Fields`` of its own, or None."""
        value = self.take(name)
        return None if value is None else Fields(value, self.at(name))

    def collect_rest(self, foreign: dict[str, Any]) -> None:
        """Keep what nobody took, by path; nulls say nothing and are left out."""
        for name, value in self._left.items():
            if value is not None:
                foreign[self.at(name)] = value


def _wrong(path: str, expected: str, value: object) -> RequestError:
    name = _JSON_NAMES.get(type(value), type(value).__name__)
    where = path or "the request body"
    return RequestError(f"{where}: expected {expected}, got {name}", parameter=path)


_JSON_NAMES: dict[type, str] = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def write_foreign(body: dict[str, Any], foreign: dict[str, Any]) -> None:
    """Put fields kept by path back into a body of the wire that they came from; a path that is gone is left out."""
    for path, value in foreign.items():
        _put(body, path.split("."), value)


def _put(target: Any, path: list[str], value: Any) -> None:
    for step, following in pairwise(path):
        if isinstance(target, list) and step.isdigit() and int(step) < len(target):
            target = target[int(step)]
        elif isinstance(target, dict):
            target = target.setdefault(step, [] if following.isdigit() else {})
        else:
            return
    last = path[-1]
    if isinstance(target, dict):
        target[last] = value
    elif isinstance(target, list) and last.isdigit():
        target.insert(int(last), value)
