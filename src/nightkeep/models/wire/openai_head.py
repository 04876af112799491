"""The few fields of a request that routing needs, as both of OpenAI's wires name and check them."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from nightkeep.core.errors import RequestError

__all__ = ["decode_head", "read_flag", "read_limit", "read_model"]

T = TypeVar("T")


def decode_head(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode the head's struct, whose fields are unchecked. Raises RequestError where there is no JSON object."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request body is not a JSON object: {error}") from error


def read_model(value: object, path_model: str | None) -> str:
    """The model asked for: the path's, else the body's."""
    model = value if path_model is None else path_model
    if not isinstance(model, str) or not model:
        raise RequestError("model: this field is required and must be a string", parameter="model")
    return model


def read_flag(value: object, name: str) -> bool:
    """A boolean; False where it is missing."""
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{name}: expected a boolean", parameter=name)
    return bool(value)


def read_limit(value: object, name: str) -> int | None:
    """A whole number (``10.0`` counts as one), or None."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise RequestError(f"{name}: expected an integer", parameter=name)
    return value
